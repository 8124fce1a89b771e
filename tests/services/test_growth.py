"""A dataset that grows: nobody changes sides, who would join two is withheld, versions have parents."""

import base64
import csv
import hashlib
import io
import os
import re
import uuid
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest
from PIL import Image

from cluster.objects import ObjectStore
from cluster.settings import Settings
from data.catalog import tables as catalog
from data.catalog.ingest import ingest
from data.catalog.originals import QUARANTINE, Originals
from data.dataset import etl, versions
from data.dataset.etl import EtlConfig
from data.dataset.groups import WOULD_JOIN_TWO_SIDES
from data.dataset.split import SPLITS
from data.imaging.preprocess import PixelConfig, to_pixels
from data.sources.manifest import REQUIRED_COLUMNS
from data.validation import dataset_report

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
    pytest.mark.usefixtures("ray_local"),
]

RUN = uuid.uuid4().int % 2**32
PATIENTS = 24


class Platform(Protocol):
    settings: Settings


class Source:
    """A folder of soft noise, one image a patient, which can be written again with more."""

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, f"grown-{uuid.uuid4().hex[:12]}"
        self.rows: list[dict[str, str]] = []
        for n in range(PATIENTS):
            self.add(picture(n), f"p{n}")

    def add(self, image: Image.Image, patient: str, label: str = "normal") -> None:
        path = f"{len(self.rows):03d}.png"
        image.save(self.path / path)
        self.rows.append({"path": path, "label": label, "source": self.name, "patient_id": patient})

    def ingest(self, settings: Settings) -> None:
        with (self.path / "manifest.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, REQUIRED_COLUMNS, restval="")
            writer.writeheader()
            writer.writerows(self.rows)
        ingest(self.path, settings)

    @property
    def config(self) -> EtlConfig:
        return EtlConfig(pixels=PixelConfig(side=64), sources=(self.name,))


def picture(seed: int) -> Image.Image:
    """Noise with structure, no two tests' alike; too small to be judged by its looks."""
    test = zlib.crc32(os.environ["PYTEST_CURRENT_TEST"].split(" ")[0].encode())
    noise = np.random.default_rng([RUN, test, seed]).integers(0, 200, (14, 14), np.uint8)
    return Image.fromarray(noise).resize((120, 120), Image.Resampling.BICUBIC)


def copy_of(image: Image.Image, quality: int = 60) -> Image.Image:
    """Smaller, darker, recompressed."""
    buffer = io.BytesIO()
    image.resize((80, 80)).point(lambda level: level * 3 // 4 + 10).save(buffer, "jpeg", quality=quality)
    return Image.open(buffer)


@pytest.fixture
def settings(platform: Platform) -> Settings:
    return platform.settings


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return Source(tmp_path)


@pytest.fixture
def sides(settings: Settings) -> Callable[[str], dict[str, str]]:
    """SHA-256 of each image of a version → its side."""

    def read(version: str) -> dict[str, str]:
        store = ObjectStore(settings)
        tables = {split: versions.load_split(store, version, split) for split in SPLITS}
        return {sha256: split for split, table in tables.items() for sha256 in table.sha256s}

    return read


def test_a_newcomer_that_would_join_training_and_test_is_withheld_and_nobody_moves(
    settings: Settings, source: Source, sides: Callable[[str], dict[str, str]]
) -> None:
    source.ingest(settings)
    first = etl.run(settings, source.config)
    before = sides(first.version)
    number = {sha256: n for n in range(PATIENTS) for sha256 in [_sha256(source.path / f"{n:03d}.png")]}
    trained, tested = (
        next(number[sha256] for sha256 in sorted(before) if before[sha256] == side)
        for side in ("train", "test")
    )
    source.add(copy_of(picture(trained)), "newcomer")
    source.add(copy_of(picture(tested)), "newcomer")
    source.add(copy_of(picture(tested), quality=80), "of test")
    source.ingest(settings)
    second = etl.run(settings, source.config)
    after = sides(second.version)
    assert after.items() >= before.items()
    assert len(after) == PATIENTS + 1
    assert after[_sha256(source.path / source.rows[-1]["path"])] == "test"
    assert second.quarantined == {WOULD_JOIN_TWO_SIDES: 2}
    described = versions.manifest(ObjectStore(settings), second.version)
    withheld = {_sha256(source.path / row["path"]) for row in source.rows[-3:-1]}
    assert {one["sha256"] for one in described["withheld"]} == withheld
    assert all(one["sides"] == ["train", "test"] for one in described["withheld"])
    assert described["parents"] == [first.version]
    assert described["near_duplicates"] == 4
    with catalog.opened(settings) as connection:
        rows: list[dict[str, Any]] = connection.execute(
            "SELECT * FROM quarantine WHERE source = %s", [source.name]
        ).fetchall()
    assert {row["reason"] for row in rows} == {WOULD_JOIN_TWO_SIDES}
    assert {row["sha256"] for row in rows} == withheld
    assert all(Originals.of(settings).get(row["object_key"], QUARANTINE) for row in rows)
    again = etl.run(settings, source.config, fresh=True)
    assert (again.version, sides(again.version)) == (second.version, after)


def test_what_comes_together_is_one_group_and_computed_again_later_the_version_is_the_same(
    settings: Settings, source: Source, sides: Callable[[str], dict[str, str]]
) -> None:
    """The same three images as above, but nothing was decided before."""
    source.add(copy_of(picture(0)), "newcomer")
    source.add(copy_of(picture(1)), "newcomer")
    source.ingest(settings)
    first = etl.run(settings, source.config)
    placed = sides(first.version)
    tied = [_sha256(source.path / source.rows[n]["path"]) for n in (0, 1, -1, -2)]
    assert len({placed[sha256] for sha256 in tied}) == 1
    assert (first.quarantined, len(placed)) == ({}, PATIENTS + 2)
    etl.run(settings, EtlConfig(pixels=PixelConfig(side=96), sources=(source.name,)))
    assert etl.run(settings, source.config, fresh=True).version == first.version
    other_seed = EtlConfig(pixels=PixelConfig(side=64), sources=(source.name,), seed=1)
    assert versions.manifest(ObjectStore(settings), etl.run(settings, other_seed).version)["parents"] == []


def test_the_page_of_a_version_shows_what_was_left_out_and_is_no_part_of_it(
    settings: Settings, source: Source
) -> None:
    source.add(picture(0), "p0", "covid19")
    Image.open(source.path / "000.png").save(source.path / source.rows[-1]["path"], compress_level=0)
    cut = source.path / "001.png"
    cut.write_bytes(cut.read_bytes()[:-600])
    source.ingest(settings)
    store = ObjectStore(settings)
    version = etl.run(settings, source.config).version
    described = store.get("datasets", f"{version}/manifest.json")
    key = dataset_report.publish(settings, version)
    page = store.get("datasets", key).decode()
    for said in (
        "truncated",
        "no picture: the file was not decoded",
        version,
        "The source could not be probed",
    ):
        assert said in page
    assert page.count("that was left out: conflicting_label") == 2
    assert page.count("X-ray of class normal") == dataset_report.STAMPS_A_CLASS
    assert "p0" not in re.sub(r"base64,[A-Za-z0-9+/=]+", "", page)
    assert store.get("datasets", f"{version}/manifest.json") == described
    assert dataset_report.publish(settings, version) == key
    assert store.get("datasets", key).decode() == page
    with pytest.raises(versions.VersionError, match="no dataset version"):
        dataset_report.publish(settings, "0123")


@pytest.mark.parametrize("reason", ["colour", "too_small"])
def test_what_was_left_out_for_its_colour_or_its_size_has_its_stamp_on_the_page(
    settings: Settings, source: Source, reason: str
) -> None:
    colours = [picture(PATIENTS + channel) for channel in range(3)]
    image = Image.merge("RGB", colours) if reason == "colour" else colours[0].resize((30, 24))
    source.add(image, "left out")
    source.ingest(settings)
    made = etl.run(settings, source.config)
    assert made.quarantined == {reason: 1}
    page = ObjectStore(settings).get("datasets", dataset_report.publish(settings, made.version)).decode()
    alt = f"X-ray from {source.name} that was left out: {reason}"
    (stamp,) = re.findall(f'<img src="data:image/jpeg;base64,([^"]+)" alt="{alt}"', page)
    shown_HW = np.asarray(Image.open(io.BytesIO(base64.b64decode(stamp))))
    blob = (source.path / source.rows[-1]["path"]).read_bytes()
    expected_HW = to_pixels(blob, PixelConfig(side=dataset_report.REJECT_SIDE), waived=(reason,))
    assert shown_HW.shape == expected_HW.shape
    assert np.abs(shown_HW.astype(int) - expected_HW).mean() < 8, "a JPEG of that picture"


def test_decisions_forgotten_give_the_same_version_where_the_data_did_not_grow(
    settings: Settings, source: Source
) -> None:
    """An independent computation: an empty database comes to the same sides."""
    source.ingest(settings)
    first = etl.run(settings, source.config)
    with catalog.opened(settings) as connection:
        connection.execute("DELETE FROM placements WHERE source = %s", [source.name])
    assert etl.run(settings, source.config, fresh=True).version == first.version


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
