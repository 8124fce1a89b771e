"""Bundles over a store of this process; the same over S3 is in services/."""

import hashlib
import io
import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch

from cluster.releases import bundles, signatures
from cluster.releases.bundles import COMMIT, SIGNATURE, BundleError
from cluster.settings import Settings

WEIGHTS = safetensors.numpy.save({"weight": np.arange(4, dtype=np.float32)})
FILES = {"model.safetensors": WEIGHTS, "card.json": b'{"classes": ["normal"]}'}
ENV = {
    "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
    "AWS_ACCESS_KEY_ID": "a",
    "AWS_SECRET_ACCESS_KEY": "b",
    "RAYDIOLOGY_DATABASE_URL": "postgresql://c/d",
    "MLFLOW_TRACKING_URI": "http://127.0.0.1:1",
    "RAY_ADDRESS": "127.0.0.1:1",
    "RAY_API_SERVER_ADDRESS": "http://127.0.0.1:1",
    "RAYDIOLOGY_API_URL": "http://127.0.0.1:1",
    "RAYDIOLOGY_ENCRYPTION_KEY_PATH": "e",
    "RAYDIOLOGY_PSEUDONYM_KEY_PATH": "f",
}


@dataclass
class Shelf:
    """What bundles ask of an object store, in a dictionary."""

    settings: Settings
    objects: dict[str, bytes] = field(default_factory=dict)
    writes: list[str] = field(default_factory=list)

    def put(self, bucket: str, key: str, blob: bytes) -> None:
        self.objects[key] = blob
        self.writes.append(key.split("/")[-1])

    def get(self, bucket: str, key: str) -> bytes:
        try:
            return self.objects[key]
        except KeyError as error:
            raise FileNotFoundError(key) from error

    def exists(self, bucket: str, key: str) -> bool:
        return key in self.objects


def shelf_with_keys(folder: Path) -> Shelf:
    folder.mkdir(exist_ok=True)
    paths = (folder / "signing_key.pem", folder / "verifying_key.pem")
    for path, text in zip(paths, signatures.generate(), strict=True):
        path.write_text(text)
    names = ("RAYDIOLOGY_SIGNING_KEY_PATH", "RAYDIOLOGY_VERIFYING_KEY_PATH")
    return Shelf(Settings.from_env({**ENV, **dict(zip(names, map(str, paths), strict=True))}))


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return shelf_with_keys(tmp_path / "ours")


def test_the_commit_object_is_written_last_and_the_signature_before_it(shelf: Shelf) -> None:
    bundles.publish(shelf, FILES)
    assert shelf.writes == ["card.json", "model.safetensors", SIGNATURE, COMMIT]


def test_a_fetched_bundle_is_what_was_published(shelf: Shelf, tmp_path: Path) -> None:
    key = bundles.publish(shelf, FILES)
    paths = bundles.fetch(shelf, key, tmp_path / "all")
    assert {name: path.read_bytes() for name, path in paths.items()} == FILES
    assert set(bundles.fetch(shelf, key, tmp_path / "one", ["card.json"])) == {"card.json"}
    bundles.verify(shelf, key)


def test_publishing_the_same_files_again_writes_nothing(shelf: Shelf) -> None:
    key = bundles.publish(shelf, FILES)
    shelf.writes.clear()
    assert bundles.publish(shelf, FILES) == key
    assert shelf.writes == []


@pytest.mark.parametrize("name", [*FILES, COMMIT, SIGNATURE])
def test_one_flipped_byte_in_any_object_is_refused(shelf: Shelf, tmp_path: Path, name: str) -> None:
    key = bundles.publish(shelf, FILES)
    whole = shelf.objects[f"{key}/{name}"]
    for place in (len(whole) // 3, len(whole) - 1):
        flipped = bytearray(whole)
        flipped[place] ^= 1
        shelf.objects[f"{key}/{name}"] = bytes(flipped)
        with pytest.raises(BundleError, match=r"was changed|is refused"):
            bundles.fetch(shelf, key, tmp_path)


def test_a_file_that_was_exchanged_together_with_its_hash_is_refused(shelf: Shelf, tmp_path: Path) -> None:
    """Whoever may write to the bucket can make a consistent bundle, and still not sign it."""
    old = bundles.publish(shelf, FILES)
    forged = {**FILES, "card.json": b'{"classes": ["tuberculosis"]}'}
    commit = bundles.commit_of(forged)
    key = f"bundles/{hashlib.sha256(commit).hexdigest()}"
    objects = {**forged, COMMIT: commit, SIGNATURE: shelf.objects[f"{old}/{SIGNATURE}"]}
    shelf.objects.update({f"{key}/{name}": blob for name, blob in objects.items()})
    with pytest.raises(BundleError, match="its signature is of another content"):
        bundles.fetch(shelf, key, tmp_path)


def test_a_bundle_whose_signature_was_stripped_is_refused_with_what_to_do(
    shelf: Shelf, tmp_path: Path
) -> None:
    key = bundles.publish(shelf, FILES)
    del shelf.objects[f"{key}/{SIGNATURE}"]
    for refuse in (
        lambda: bundles.fetch(shelf, key, tmp_path),
        lambda: bundles.index(shelf, key),
        lambda: bundles.verify(shelf, key),
    ):
        with pytest.raises(BundleError, match=r"it has no signature\. `python -m jobs\.export --sign`"):
            refuse()


def test_a_bundle_that_another_key_signed_is_refused_until_ours_signs_it(
    shelf: Shelf, tmp_path: Path
) -> None:
    theirs = shelf_with_keys(tmp_path / "theirs")
    key = bundles.publish(theirs, FILES)
    shelf.objects = theirs.objects
    with pytest.raises(BundleError, match="signed with another key"):
        bundles.fetch(shelf, key, tmp_path / "x")
    assert bundles.sign(shelf, key)
    bundles.fetch(shelf, key, tmp_path / "x")
    assert not bundles.sign(shelf, key)


def test_a_changed_bundle_is_not_signed_anew(shelf: Shelf) -> None:
    key = bundles.publish(shelf, FILES)
    del shelf.objects[f"{key}/{SIGNATURE}"]
    shelf.objects[f"{key}/card.json"] = b"{}"
    with pytest.raises(BundleError, match=r"card\.json was changed"):
        bundles.sign(shelf, key)
    assert f"{key}/{SIGNATURE}" not in shelf.objects


def test_publishing_an_unsigned_bundle_again_signs_it(shelf: Shelf) -> None:
    key = bundles.publish(shelf, FILES)
    del shelf.objects[f"{key}/{SIGNATURE}"]
    assert bundles.publish(shelf, FILES) == key
    bundles.verify(shelf, key)


def test_a_pickle_is_neither_published_nor_loaded_even_when_it_is_signed(
    shelf: Shelf, tmp_path: Path
) -> None:
    buffer = io.BytesIO()
    torch.save({"weight": torch.zeros(1)}, buffer)
    files = {"model.pt": buffer.getvalue()}
    with pytest.raises(BundleError, match=r"model\.pt is a pickle"):
        bundles.publish(shelf, files)
    commit = bundles.commit_of(files)
    key = f"bundles/{hashlib.sha256(commit).hexdigest()}"
    signature = signatures.sign(commit, shelf.settings.signing_key_path)
    objects = {**files, COMMIT: commit, SIGNATURE: signature}
    shelf.objects.update({f"{key}/{name}": blob for name, blob in objects.items()})
    with pytest.raises(BundleError, match=r"model\.pt is a pickle"):
        bundles.fetch(shelf, key, tmp_path)
    assert not (tmp_path / "model.pt").exists()


def test_without_keys_nothing_is_published_and_nothing_loaded(shelf: Shelf, tmp_path: Path) -> None:
    key = bundles.publish(shelf, FILES)
    shelf.settings = replace(shelf.settings, signing_key_path=None, verifying_key_path=None)
    with pytest.raises(BundleError, match="RAYDIOLOGY_SIGNING_KEY_PATH is not set"):
        bundles.publish(shelf, FILES)
    with pytest.raises(BundleError, match="RAYDIOLOGY_VERIFYING_KEY_PATH is not set"):
        bundles.fetch(shelf, key, tmp_path)


def test_a_bundle_that_was_not_finished_is_absent(shelf: Shelf, tmp_path: Path) -> None:
    key = bundles.publish(shelf, FILES)
    del shelf.objects[f"{key}/{COMMIT}"]
    with pytest.raises(BundleError, match="no complete release bundle"):
        bundles.fetch(shelf, key, tmp_path)


def test_the_commit_object_names_each_file_with_its_hash() -> None:
    listed = json.loads(bundles.commit_of(FILES))["files"]
    assert listed["model.safetensors"]["sha256"] == hashlib.sha256(WEIGHTS).hexdigest()
    assert listed["model.safetensors"]["bytes"] == len(WEIGHTS)
