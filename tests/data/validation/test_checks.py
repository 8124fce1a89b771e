"""Every check of a dataset version, passing on a good table and failing on a small bad one."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

from tests.data.validation.tables import CONFIG, baseline, checks, digest, failures, table


def test_a_good_table_passes_and_the_first_has_nothing_to_compare_with() -> None:
    found = checks(table())
    assert failures(found) == set()
    assert found["baseline"].verdict == "not evaluable"
    assert "nothing to compare with" in found["baseline"].finding
    assert {one.verdict for one in found.values()} == {"pass", "not evaluable"}


def set_cell(column: str, value: Any) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def change(frame: pd.DataFrame) -> pd.DataFrame:
        changed = frame.copy()
        changed.loc[5, column] = value
        return changed

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda frame: frame.drop(columns=["group_key"]), "no column group_key"),
        (lambda frame: frame.iloc[:0], "no row"),
        (lambda frame: frame.assign(mean="bright"), "mean: is of another type"),
        (set_cell("label", "zebra"), "label: is no class of the version"),
        (set_cell("label_index", 0), "labels and their numbers disagree"),
        (set_cell("split", "holdout"), "split: is no side of the split"),
        (set_cell("split", "train"), "groups are on several sides of the split"),
        (set_cell("sha256", "Jane Doe"), "sha256: is no SHA-256"),
        (set_cell("sha256", None), "sha256: a value is missing"),
        (set_cell("source", " "), "source: is empty"),
        (set_cell("sample_hash", digest("a", 0, 4)), "sample_hash: occurs twice"),
    ],
)
def test_a_table_of_another_schema_fails_and_nothing_else_is_judged(
    change: Callable[[pd.DataFrame], pd.DataFrame], said: str
) -> None:
    found = checks(change(table(12)))
    assert failures(found) == {"schema"} == {*found}
    assert said in found["schema"].finding
    assert "Jane" not in str(found)


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("age", 131, "age: is no age of a person"),
        ("age", -1, "age: is no age of a person"),
        ("sex", "X", "sex: is not F, M or O"),
        ("view", "x" * 41, "view: is empty or too long"),
        ("mean", 256, "mean: is no grey level"),
        ("pixel_bytes", 7, "pixel_bytes: is not 32 x 32"),
    ],
)
def test_a_value_out_of_its_range_fails(column: str, value: Any, said: str) -> None:
    found = checks(set_cell(column, value)(table(12)))
    assert "ranges" in failures(found)
    assert f"{said} (1 rows)" in found["ranges"].finding


def test_files_and_manifest_that_disagree_fail() -> None:
    assert failures(checks(table(30), counts={"train": {"normal": 29}})) == {"completeness"}


def test_too_many_rejects_fail_and_duplicates_are_none() -> None:
    assert failures(checks(table(30), quarantined={"blank": 31})) == {"completeness"}
    assert failures(checks(table(30), quarantined={"blank": 30})) == set()
    assert failures(checks(table(30), quarantined={"duplicate": 99})) == set()
    assert failures(checks(table(6), quarantined={"blank": 9})) == set()


def test_a_side_of_the_split_without_images_is_a_warning() -> None:
    frame = table(30)
    assert checks(frame[frame["split"] != "test"])["completeness"].verdict == "warn"


@pytest.mark.parametrize(("column", "value"), [("mean", 250.0), ("mean", 2.0), ("contrast", 1.0)])
def test_images_without_a_picture_fail_from_one_in_twenty(column: str, value: float) -> None:
    frame = table(100)
    frame.loc[:4, column] = value
    assert failures(checks(frame)) == set()
    frame.loc[:5, column] = value
    assert failures(checks(frame)) == {"grey_extremes"}
    assert checks(frame.iloc[:10])["grey_extremes"].verdict == "not evaluable"


def test_one_class_alone_or_almost_alone_fails() -> None:
    frame = table(300)
    alone = frame[frame["label"] == "normal"]
    assert failures(checks(alone)) == {"class_balance"}
    almost = pd.concat([alone, frame[frame["label"] == "covid19"].iloc[:5]])
    assert failures(checks(almost)) == {"class_balance"}
    assert checks(almost.iloc[-10:])["class_balance"].verdict == "pass"


@pytest.mark.parametrize(
    "license_",
    [
        "CC0-1.0",
        "CC BY 4.0 (Kermany et al., Mendeley Data 10.17632/rscbjbr9sj)",
        "CC BY 3.0 (Hannover Medical School, doi 10.25835/0090041)",
        "CC BY-NC-SA (https://radiopaedia.org/cases/x)",
        "CC BY (https://radiopaedia.org/cases/pneumocystis-pneumonia-1)",
        "CC_BY_NC_SA 4.0",
        "NIH Clinical Center: no restrictions on use; cite Wang et al. 2017",
        "ODC-By 1.0 as declared by the Kaggle compiler",
        "listed as authorized for everyone (https://www.rad2share.com/1)",
        "CC BY-SA 4.0 as Kaggle lists it; images remain under the terms of their collections",
        "Data files © original authors (as Kaggle lists it); cite both articles",
    ],
)
def test_a_licence_that_allows_research_passes(license_: str) -> None:
    assert checks(table(30), licenses={license_: 30})["license"].verdict == "pass"


@pytest.mark.parametrize(
    "license_", ["CC BY-ND 4.0", "CC BY-NC-ND 4.0", "all rights reserved", "no explicit licence", "CC BYE"]
)
def test_any_other_licence_fails_and_is_named(license_: str) -> None:
    found = checks(table(30), licenses={"CC0-1.0": 29, license_: 1})
    assert failures(found) == {"license"}
    assert license_ in found["license"].finding


def test_images_without_a_licence_warn_unless_they_are_to_halt() -> None:
    for unknown in ("unknown", "unknown: the folder does not say"):
        assert checks(table(30), licenses={unknown: 30})["license"].verdict == "warn"
    strict = replace(CONFIG, allow_unlicensed=False)
    assert failures(checks(table(30), config=strict, licenses={"unknown": 30})) == {"license"}


def test_a_source_that_should_be_there_and_is_not_fails() -> None:
    before = pd.concat([table(60), table(60, source="b")], ignore_index=True)
    found = checks(table(60), baseline(before, missing_sources=("b",)))
    assert failures(found) == {"sources"}
