"""One listed file as ingest inspects it, before anything is written."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from data.catalog.inspection import group_key, inspect
from data.sources.manifest import ManifestRow

KEY = bytes(range(32))
PNG = b"\x89PNG\r\n\x1a\n" + bytes(40)


@pytest.fixture
def row(tmp_path: Path) -> ManifestRow:
    (tmp_path / "a.png").write_bytes(PNG)
    return ManifestRow(
        line=2, path="a.png", file=tmp_path / "a.png", label="normal", source_label="normal", source="s",
        patient_id="4711", sex=None, age_years=None, age_range_years=None, view=None, license=None, sha256=None,
        group_id=None, further={},
    )  # fmt: skip


def test_a_good_file_has_its_hash_and_a_pseudonym_in_place_of_its_patient(row: ManifestRow) -> None:
    inspection = inspect(row, KEY)
    assert (inspection.sha256, inspection.reason) == (hashlib.sha256(PNG).hexdigest(), None)
    assert len(inspection.patient) == 64
    assert inspection.patient == inspect(replace(row, view="PA"), KEY).patient
    assert inspection.patient != inspect(replace(row, source="t"), KEY).patient


@pytest.mark.parametrize(
    ("content", "reason"), [(None, "missing"), (b"", "empty"), (b"hello", "unknown_type")]
)
def test_a_file_that_cannot_be_stored_has_a_reason(
    row: ManifestRow, content: bytes | None, reason: str
) -> None:
    row.file.unlink()
    if content is not None:
        row.file.write_bytes(content)
    assert inspect(row, KEY).reason == reason


def test_a_folder_and_another_checksum_are_refused(row: ManifestRow) -> None:
    assert inspect(replace(row, file=row.file.parent), KEY).reason == "not_a_file"
    assert inspect(replace(row, sha256="0" * 64), KEY).reason == "checksum"


def test_the_group_is_the_manifests_or_the_patient(row: ManifestRow) -> None:
    of_patient = group_key(inspect(row, KEY), KEY)
    assert of_patient == group_key(inspect(replace(row, path="b.png"), KEY), KEY)
    assert of_patient != group_key(inspect(replace(row, group_id="g"), KEY), KEY)
