"""The tuberculosis chest X-rays of two flat folders."""

from collections.abc import Callable

from data.sources.manifest import Manifest
from tests.data.sources.listings import labels


def test_tb_chest_reads_two_flat_class_folders(listed: Callable[[str], Manifest]) -> None:
    found = listed("tb-chest")
    assert labels(found) == {"normal": 4, "tuberculosis": 4}
    assert {row.patient_id for row in found.rows} == {None}
    assert len(found.notes) == 4
