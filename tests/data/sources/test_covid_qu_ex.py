"""COVID-QU-Ex in both of its parts."""

import shutil
from collections import Counter
from pathlib import Path

from tests.data.sources.listings import Miniature, labels, listing


def test_covid_qu_ex_reads_both_parts_and_bimcvs_names(miniature: Miniature, tmp_path: Path) -> None:
    folder = miniature("covid-qu-ex", tmp_path / "set")
    found = listing("covid-qu-ex", folder)
    assert labels(found) == {"covid19": 9, "lung_opacity": 9, "normal": 9}
    told = [row for row in found.rows if row.patient_id]
    assert {(row.patient_id, row.view) for row in told} == {("sub-S09345", "AP")}
    assert {row.further["published_split"] for row in found.rows} == {"train", "val", "test"}
    assert Counter(row.further["part"] for row in found.rows) == {"lung": 18, "infection": 9}
    shutil.rmtree(folder / "Infection Segmentation Data")
    alone = listing("covid-qu-ex", folder)
    assert (len(alone.rows), alone.notes) == (18, ("Infection Segmentation Data is not there",))
