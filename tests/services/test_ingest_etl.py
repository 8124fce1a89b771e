"""Folder → sealed originals and catalog → dataset version, with the real S3 server, PostgreSQL and Ray Data."""

import csv
import hashlib
import io
import json
import os
import uuid
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest
from PIL import Image

from cluster.objects import ObjectStore, ObjectStoreError, arrow_filesystem
from cluster.settings import Settings
from data.catalog import tables as catalog
from data.catalog.ingest import IngestError, ingest
from data.catalog.originals import QUARANTINE, RAW, Originals
from data.dataset import etl, versions
from data.dataset.etl import EtlConfig, EtlError
from data.dataset.split import SPLITS
from data.dataset.staging import ABANDONED_AFTER
from data.imaging.preprocess import PixelConfig, to_pixels
from data.sources.manifest import REQUIRED_COLUMNS, ManifestError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")
"""The default context of Ray Data warns of its own defaults."""

PIXELS = PixelConfig(side=32)
RUN = uuid.uuid4().int % 2**32
LABELS = ("normal", "bacterial_pneumonia", "tuberculosis")


class Platform(Protocol):
    settings: Settings


class Folder:
    """A folder of drawn images with a manifest, under a source name of its own."""

    def __init__(self, path: Path, source: str) -> None:
        self.path, self.source = path, source
        self.rows: list[dict[str, str]] = []

    def add(self, blob: bytes | None, label: str = "normal", **columns: str) -> str:
        name = f"{len(self.rows):03d}.png"
        if blob is not None:
            (self.path / name).write_bytes(blob)
        self.rows.append({"path": name, "label": label, "source": self.source, **columns})
        return name

    def write(self) -> Path:
        further = sorted({name for row in self.rows for name in row} - set(REQUIRED_COLUMNS))
        with (self.path / "manifest.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, [*REQUIRED_COLUMNS, *further], restval="")
            writer.writeheader()
            writer.writerows(self.rows)
        return self.path


def png(seed: int, side: int = 48) -> bytes:
    """Noise, no two tests' alike: equal files share one object in the store."""
    test = zlib.crc32(os.environ["PYTEST_CURRENT_TEST"].split(" ")[0].encode())
    image_HW = np.random.default_rng([RUN, test, seed]).integers(0, 256, (side, side), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(image_HW).save(buffer, "png")
    return buffer.getvalue()


def sha256(blob: bytes) -> str:
    return hashlib.sha256(blob).hexdigest()


def staged(store: ObjectStore) -> set[str]:
    """Objects; an empty folder that the server keeps is none."""
    return {key for key in store.keys("datasets", "_staging") if key.startswith("_staging/")}


def cut_short(settings: Settings, config: EtlConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run ETL as far as its last step; what it has staged stays."""

    def cut(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(versions, "publish", cut)
        with pytest.raises(KeyboardInterrupt):
            etl.run(settings, config)


@pytest.fixture
def settings(platform: Platform) -> Settings:
    return platform.settings


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path, f"test-{uuid.uuid4().hex[:12]}")


@pytest.fixture
def query(settings: Settings) -> Callable[..., list[dict[str, Any]]]:
    def run(text: str, *values: Any) -> list[dict[str, Any]]:
        with catalog.opened(settings) as connection:
            return connection.execute(text.encode(), values).fetchall()

    return run


def filled(folder: Folder, images: int = 30) -> Folder:
    for n in range(images):
        folder.add(png(n), LABELS[n % 3], patient_id=f"p{n // 2}", sex="F", age="46", view="PA")
    return folder


def test_an_ingested_image_is_sealed_and_its_row_names_no_patient(
    settings: Settings, folder: Folder, query: Callable[..., list[dict[str, Any]]]
) -> None:
    folder.add(png(1), patient_id="Jane Doe", age="93", site="north", nurse="Ann Onym", license="CC0-1.0")
    report = ingest(folder.write(), settings)
    assert (report.ingested, report.quarantined, report.sources) == (1, 0, (folder.source,))
    row = query("SELECT * FROM samples WHERE source = %s", folder.source)[0]
    assert "Jane" not in str(row)
    assert "Ann" not in str(row)
    assert (row["age"], row["site"], row["sex"], row["metadata"]["site"]) == (90, "north", None, "north")
    stored = ObjectStore(settings).get(RAW, row["raw_key"])
    assert b"PNG" not in stored
    assert Originals.of(settings).get(row["raw_key"]) == png(1)


def test_a_second_ingest_stores_nothing_again(settings: Settings, folder: Folder) -> None:
    filled(folder).write()
    first, second = ingest(folder.path, settings), ingest(folder.path, settings)
    assert (first.ingested, first.already) == (30, 0)
    assert (second.ingested, second.already) == (0, 30)


def test_a_lost_object_is_stored_again_and_a_corrected_label_replaces_the_old(
    settings: Settings, folder: Folder, query: Callable[..., list[dict[str, Any]]]
) -> None:
    filled(folder, 4)
    ingest(folder.write(), settings)
    lost = query("SELECT raw_key FROM samples WHERE source = %s ORDER BY sha256 LIMIT 1", folder.source)
    arrow_filesystem(settings).delete_file(f"{settings.bucket(RAW)}/{lost[0]['raw_key']}")
    assert ingest(folder.path, settings).ingested == 1
    assert Originals.of(settings).present(RAW, [lost[0]["raw_key"]])
    folder.rows[0]["label"] = "covid19"
    report = ingest(folder.write(), settings)
    assert (report.ingested, report.already) == (1, 3)
    labels = query("SELECT label FROM samples WHERE source = %s", folder.source)
    assert [row["label"] for row in labels].count("covid19") == 1


def test_bad_files_are_set_aside_with_a_reason_and_the_rest_goes_on(
    settings: Settings, folder: Folder, query: Callable[..., list[dict[str, Any]]]
) -> None:
    folder.add(png(1))
    folder.add(png(1))
    folder.add(None)
    folder.add(b"")
    folder.add(b"hello there, I am no image")
    folder.add(png(2), sha256="0" * 64)
    (folder.path / "dir").mkdir()
    folder.rows.append({"path": "dir", "label": "normal", "source": folder.source})
    reasons = {"missing": 1, "empty": 1, "unknown_type": 1, "checksum": 1, "not_a_file": 1}
    for already in (0, 1):
        report = ingest(folder.write(), settings)
        assert (report.already, report.duplicates, report.quarantined) == (already, 1, 5)
        assert report.by_reason == reasons
    rows = query("SELECT * FROM quarantine WHERE source = %s AND stage = 'ingest'", folder.source)
    assert sorted(row["reason"] for row in rows) == sorted(reasons)
    kept = {row["reason"]: row["object_key"] for row in rows if row["object_key"]}
    assert kept.keys() == {"unknown_type", "checksum"}
    assert Originals.of(settings).get(kept["checksum"], QUARANTINE) == png(2)


def test_a_folder_of_which_no_file_exists_is_refused(settings: Settings, folder: Folder) -> None:
    folder.add(None)
    with pytest.raises(IngestError, match="none of the 1 files"):
        ingest(folder.write(), settings)


def test_the_same_bytes_with_two_labels_are_refused_before_anything_is_stored(
    settings: Settings, folder: Folder, query: Callable[..., list[dict[str, Any]]]
) -> None:
    folder.add(png(1), "normal")
    folder.add(png(1), "covid19")
    with pytest.raises(ManifestError, match="line 3: the same image as line 2"):
        ingest(folder.write(), settings)
    assert query("SELECT 1 FROM samples WHERE source = %s", folder.source) == []


@pytest.mark.parametrize(
    ("change", "error", "part"),
    [
        ({"s3_endpoint": "http://127.0.0.1:9"}, ObjectStoreError, "make status"),
        ({"s3_secret_key": "wrong"}, ObjectStoreError, "cannot write"),
        ({"database_url": "postgresql://nobody:secret@127.0.0.1:9/x"}, catalog.CatalogError, "make status"),
    ],
)
def test_a_service_that_is_away_is_one_clear_line(
    settings: Settings, folder: Folder, change: dict[str, str], error: type[Exception], part: str
) -> None:
    folder.add(png(1))
    with pytest.raises(error, match=part) as caught:
        ingest(folder.write(), replace(settings, **change))
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.usefixtures("ray_local")
def test_etl_writes_what_load_split_reads(settings: Settings, folder: Folder) -> None:
    ingest(filled(folder, 60).write(), settings)
    store = ObjectStore(settings)
    before = staged(store)
    seen: list[tuple[int, int, str]] = []
    report = etl.run(
        settings,
        EtlConfig(pixels=PIXELS, sources=(folder.source,)),
        progress=lambda *step: seen.append(step),
        git_commit="abc",
    )
    assert (report.reused, report.quarantined, seen[-1][:2]) == (False, {}, (3, 3))
    described = versions.manifest(store, report.version)
    assert described["settings"]["pixels"]["side"] == 32
    assert (described["synthetic"], described["git_commit"], described["parents"]) == (False, "abc", [])
    tables = {split: versions.load_split(store, report.version, split) for split in SPLITS}
    assert {split: len(table) for split, table in tables.items()} == {
        split: sum(by_class.values()) for split, by_class in report.counts.items()
    }
    wanted = {to_pixels(png(n), PIXELS).tobytes(): LABELS[n % 3] for n in range(60)}
    for table in tables.values():
        assert table.sample_hashes == sorted(table.sample_hashes)
        assert table.pixels_NHW.dtype == np.uint8
        for pixels_HW, label in zip(table.pixels_NHW, table.labels_N, strict=True):
            assert wanted.pop(pixels_HW.tobytes()) == described["classes"][label]
    assert wanted == {}
    groups = [set(table.groups) for table in tables.values()]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 30
    assert staged(store) == before


@pytest.mark.usefixtures("ray_local")
def test_etl_is_repeatable_reused_and_blind_to_how_the_work_was_cut(
    settings: Settings, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest(filled(folder).write(), settings)
    config = EtlConfig(pixels=PIXELS, sources=(folder.source,))
    first, again = etl.run(settings, config), etl.run(settings, config)
    assert again == replace(first, reused=True)
    store = ObjectStore(settings)
    before = versions.manifest(store, first.version)
    monkeypatch.setattr(etl, "SMALLEST_BLOCK_ROWS", 7)
    assert etl.run(settings, config, fresh=True) == first
    assert versions.manifest(store, first.version) == before
    assert etl.run(settings, replace(config, seed=1)).version != first.version
    assert etl.run(settings, replace(config, pixels=PixelConfig(side=48))).version != first.version


@pytest.mark.usefixtures("ray_local")
def test_bad_images_get_a_reason_and_do_not_stop_etl(
    settings: Settings, folder: Folder, query: Callable[..., list[dict[str, Any]]]
) -> None:
    filled(folder, 12)
    folder.add(png(100)[:-200])
    folder.add(png(101, side=8))
    blank = io.BytesIO()
    Image.new("L", (48, 48), 7).save(blank, "png")
    folder.add(blank.getvalue())
    same_pixels = io.BytesIO()
    Image.open(io.BytesIO(png(0))).save(same_pixels, "png", compress_level=0)
    folder.add(same_pixels.getvalue(), LABELS[0])
    other_label = io.BytesIO()
    Image.open(io.BytesIO(png(1))).save(other_label, "png", compress_level=0)
    folder.add(other_label.getvalue(), "covid19")
    ingest(folder.write(), settings)
    gone = query(
        "SELECT raw_key FROM samples WHERE source = %s AND sha256 = %s", folder.source, sha256(png(2))
    )
    arrow_filesystem(settings).delete_file(f"{settings.bucket(RAW)}/{gone[0]['raw_key']}")
    report = etl.run(settings, EtlConfig(pixels=PIXELS, sources=(folder.source,)))
    expected = {"truncated": 1, "too_small": 1, "blank": 1, "duplicate": 1, "conflicting_label": 2}
    assert report.quarantined == {**expected, "missing_original": 1}
    assert sum(sum(by_class.values()) for by_class in report.counts.values()) == 10
    rows = query("SELECT * FROM quarantine WHERE source = %s AND stage = 'etl'", folder.source)
    assert len(rows) == 6
    kept = {row["sha256"]: row["object_key"] for row in rows if row["object_key"]}
    assert len(kept) == 5
    assert Originals.of(settings).get(kept[sha256(blank.getvalue())], QUARANTINE) == blank.getvalue()


@pytest.mark.usefixtures("ray_local")
def test_an_interrupted_etl_shows_nothing_and_continues_with_its_staged_blocks(
    settings: Settings, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest(filled(folder).write(), settings)
    config = EtlConfig(pixels=PIXELS, sources=(folder.source,))
    store = ObjectStore(settings)
    before, unfinished = versions.names(store), staged(store)

    cut_short(settings, config, monkeypatch)
    assert versions.names(store) == before
    left = staged(store) - unfinished
    kinds = Counter(key.partition("/")[2].partition("/")[2].partition(".")[2] for key in left)
    receipts = kinds.pop("parquet.json")
    assert kinds == {"pixels.parquet": 1, "parquet": 1}
    assert 1 <= receipts <= 3, "one a side of the split that has an image"

    def written_at() -> list[int]:
        infos = arrow_filesystem(settings).get_file_info(
            [store.path("datasets", key) for key in sorted(left)]
        )
        return [one.mtime_ns for one in infos]

    first = written_at()
    with monkeypatch.context() as patch:
        patch.setattr(ObjectStore, "delete", lambda *_: None)
        report = etl.run(settings, config)
    assert written_at() == first
    assert (report.blocks, report.blocks_found) == (1, 1)
    assert report.version in versions.names(store)
    assert etl.run(settings, config).reused
    assert not staged(store) & left


@pytest.mark.usefixtures("ray_local")
@pytest.mark.parametrize("known", [False, True], ids=["a new version", "a version that exists"])
def test_a_run_sweeps_what_another_has_staged_and_nobody_finished_for_a_week(
    settings: Settings, folder: Folder, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    ingest(filled(folder, 12).write(), settings)
    other, config = (EtlConfig(pixels=PIXELS, sources=(folder.source,), seed=seed) for seed in (1, 2))
    store = ObjectStore(settings)
    before = staged(store)
    cut_short(settings, other, monkeypatch)
    left = staged(store) - before
    assert len(left) >= 3, "the pixels of a block, its outcome, and a receipt for each part"
    week = datetime.now(UTC) + ABANDONED_AFTER
    etl.run(settings, config, now=week - timedelta(hours=1))
    assert left <= staged(store)
    assert etl.run(settings, config, fresh=not known, now=week + timedelta(hours=1)).reused is known
    assert not staged(store) & left
    assert etl.run(settings, other).blocks_found == 0, "begun anew"


@pytest.mark.usefixtures("ray_local")
def test_a_changed_or_lost_part_is_refused_and_fresh_writes_it_again(
    settings: Settings, folder: Folder
) -> None:
    ingest(filled(folder).write(), settings)
    config = EtlConfig(pixels=PIXELS, sources=(folder.source,))
    version = etl.run(settings, config).version
    store = ObjectStore(settings)
    key = versions.part_key(version, "train", 0)
    whole = store.get("datasets", key)
    store.put("datasets", key, whole[:-1] + b"x")
    with pytest.raises(versions.VersionError, match=r"train-00000\.parquet was changed; .*--fresh"):
        versions.load_split(store, version, "train")
    arrow_filesystem(settings).delete_file(store.path("datasets", key))
    with pytest.raises(versions.VersionError, match=r"train-00000\.parquet is gone"):
        versions.load_split(store, version, "train")
    assert etl.run(settings, config, fresh=True).version == version
    assert store.get("datasets", key) == whole


@pytest.mark.usefixtures("ray_local")
def test_etl_refuses_an_unknown_source_and_a_version_that_does_not_exist(settings: Settings) -> None:
    with pytest.raises(EtlError, match="no source 'nowhere'; there are: "):
        etl.run(settings, EtlConfig(pixels=PIXELS, sources=("nowhere",)))
    with pytest.raises(versions.VersionError, match="no dataset version '0123'; there are: "):
        versions.manifest(ObjectStore(settings), "0123")


@pytest.mark.usefixtures("ray_local")
def test_a_version_is_noted_in_the_database_as_in_the_store(
    settings: Settings, folder: Folder, query: Callable[..., list[dict[str, Any]]]
) -> None:
    folder.source = f"synthetic-{folder.source}"
    ingest(filled(folder, 6).write(), settings)
    version = etl.run(settings, EtlConfig(pixels=PIXELS, sources=(folder.source,))).version
    noted = query("SELECT manifest FROM dataset_versions WHERE version = %s", version)[0]["manifest"]
    assert noted == json.loads(ObjectStore(settings).get("datasets", f"{version}/manifest.json"))
    assert noted["synthetic"] is True
