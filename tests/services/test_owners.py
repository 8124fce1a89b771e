"""One file under several patients: in one listing, and in one after the other."""

import csv
import io
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cluster.objects import ObjectStore
from cluster.settings import Settings
from data.catalog import shared_files, tables
from data.catalog.ingest import IngestReport, ingest
from data.dataset import etl
from data.dataset.etl import EtlConfig
from data.dataset.split import SPLITS
from data.dataset.versions import load_split
from data.imaging.preprocess import PixelConfig
from data.privacy import erasure
from data.sources.manifest import REQUIRED_COLUMNS
from tests.conftest import Platform

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
    pytest.mark.usefixtures("ray_local"),
]
PATIENTS = 12
"""Pairs of patients: that none of them is parted by chance where nothing ties them has odds of 1 to 10,000."""


@pytest.fixture
def settings(platform: Platform) -> Settings:
    return platform.settings


@pytest.fixture
def source() -> str:
    return f"owners-{uuid.uuid4().hex[:12]}"


def png(*seed: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (48, 48), np.uint8)).save(buffer, "png")
    return buffer.getvalue()


def listed(folder: Path, source: str, files: Mapping[str, bytes], rows: Sequence[tuple[str, str]]) -> Path:
    """A folder with these files and, as rows, path and patient."""
    folder.mkdir(exist_ok=True)
    for name, blob in files.items():
        (folder / name).write_bytes(blob)
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, REQUIRED_COLUMNS, restval="")
        writer.writeheader()
        for path, patient in rows:
            writer.writerow({"path": path, "label": "normal", "source": source, "patient_id": patient})
    return folder


def sides(settings: Settings, source: str) -> dict[str, str]:
    """SHA-256 → split, of a new version."""
    version = etl.run(settings, EtlConfig(pixels=PixelConfig(side=32), sources=(source,))).version
    store = ObjectStore(settings)
    return {one: split for split in SPLITS for one in load_split(store, version, split).sha256s}


def test_patients_who_share_a_file_are_never_on_two_sides(
    settings: Settings, source: str, tmp_path: Path
) -> None:
    run = uuid.uuid4().int % 2**32
    files, rows = {}, []
    for n in range(PATIENTS):
        for nth, who in enumerate((f"a{n}", f"b{n}")):
            files |= {f"{who}.png": png(run, n, nth), f"{who}-shared.png": png(run, n, 2)}
            rows += [(f"{who}.png", who), (f"{who}-shared.png", who)]
    report = ingest(listed(tmp_path / "one", source, files, rows), settings)
    assert (report.ingested, report.duplicates, report.shared) == (3 * PATIENTS, PATIENTS, PATIENTS)
    with tables.opened(settings) as connection:
        samples = {one.sha256: one for one in tables.samples(connection, [source])}
        others = shared_files.read(connection, [source])
    assert len(others) == PATIENTS
    found = sides(settings, source)
    side_of = {one.patient_pseudonym: found[sha256] for sha256, one in samples.items()}
    for (_, sha256), ((other, _),) in others.items():
        assert side_of[other] == found[sha256] == side_of[samples[sha256].patient_pseudonym]


def test_a_file_that_comes_again_under_another_patient_is_found_by_both(
    settings: Settings, source: str, tmp_path: Path
) -> None:
    first, second, third = (f"{name}-{uuid.uuid4().hex}" for name in ("first", "second", "third"))
    run = uuid.uuid4().int % 2**32
    files = {"x.png": png(run, 1), "y.png": png(run, 2)}

    def again(owner: str) -> IngestReport:
        return ingest(listed(tmp_path / "x", source, files, [("x.png", owner), ("y.png", third)]), settings)

    assert again(first).shared == 0
    assert again(second).shared == 1
    assert again(second).already == 2
    gone = erasure.erase(settings, first, source, by="test")
    assert (gone.images, gone.objects) == (1, 1)
    with tables.opened(settings) as connection:
        assert shared_files.read(connection, [source]) == {}
        assert len(tables.samples(connection, [source])) == 1
    assert again(second).forgotten == 1
