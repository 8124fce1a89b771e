"""Every check of a dataset version, passing on a good table and failing on a small bad one."""

import hashlib
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from data.dataset.parts import PART
from data.validation import checks_report, profile
from data.validation.checks import validate
from data.validation.config import Baseline, Check, Subject, ValidationConfig, failed

CLASSES = ("normal", "covid19", "tuberculosis")
CONFIG = ValidationConfig()
SPLITS = ("train", "validation", "test")


def digest(*parts: Any) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def table(images: int = 240, *, batch: int = 0, source: str = "a", seed: int = 0) -> pd.DataFrame:
    """Rows as a version's files give them: two images a patient, three classes, and their grey values."""
    rng = np.random.default_rng([seed, batch])
    rows = [
        {
            "sample_hash": digest(source, batch, n),
            "label": CLASSES[n % 3],
            "label_index": n % 3,
            "group_key": digest("g", source, batch, n // 2),
            "split": SPLITS[(n // 2) % 3],
            "source": source,
            "sha256": digest("f", source, batch, n),
            "sex": ("F", "M", None)[(n // 2) % 3],
            "age": float(20 + n // 2 % 60),
            "view": "PA",
            "site": None,
        }
        for n in range(images)
    ]
    frame = pa.Table.from_pylist(rows, schema=PART).drop_columns(["pixels"]).to_pandas()
    frame["mean"] = rng.normal(120, 20, images).astype(np.float32)
    frame["contrast"] = rng.normal(60, 6, images).astype(np.float32)
    frame["pixel_bytes"] = 32 * 32
    return frame


def subject(frame: pd.DataFrame, **described: Any) -> Subject:
    counts: dict[str, dict[str, int]] = {split: dict.fromkeys(CLASSES, 0) for split in SPLITS}
    if {"split", "label"} <= {*frame.columns}:
        for split, label in zip(frame["split"], frame["label"], strict=True):
            counts.setdefault(split, {}).setdefault(label, 0)
            counts[split][label] += 1
    manifest = {
        "classes": list(CLASSES),
        "counts": counts,
        "quarantined": {},
        "licenses": {"CC BY 4.0 (somebody)": len(frame)},
        "settings": {"pixels": {"side": 32}},
    }
    return Subject(rows=frame, described=manifest | described)


def checks(
    frame: pd.DataFrame,
    baseline: Baseline | None = None,
    config: ValidationConfig = CONFIG,
    **described: Any,
) -> dict[str, Check]:
    return {one.name: one for one in validate(subject(frame, **described), baseline, config)[0]}


def failures(found: dict[str, Check]) -> set[str]:
    return {one.name for one in failed(list(found.values()))}


def baseline(frame: pd.DataFrame, **changes: Any) -> Baseline:
    made = Baseline(
        version="before",
        profile=profile.of(frame),
        same_pixels=True,
        sample_hashes=frozenset(frame["sample_hash"]),
        missing_sources=(),
    )
    return replace(made, **changes)


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


def test_an_undisturbed_second_batch_passes_every_comparison() -> None:
    before, more = table(), table(batch=1)
    found = checks(pd.concat([before, more], ignore_index=True), baseline(before))
    assert failures(found) == set()
    names = {"shift_label", "shift_sex", "shift_age", "shift_view", "shift_source", "shift_mean"}
    assert names | {"shift_contrast", "shift_new_mean", "shift_new_contrast"} <= {*found}


def test_a_batch_of_which_half_is_white_fails_although_the_old_images_thin_it() -> None:
    before, more = table(600), table(batch=1, images=120)
    more.loc[::2, "mean"] = 220
    found = checks(pd.concat([before, more], ignore_index=True), baseline(before))
    assert failures(found) == {"shift_new_mean"}
    assert "of the new images: shifted, 0.5" in found["shift_new_mean"].finding


@pytest.mark.parametrize(
    ("column", "value", "failed"),
    [
        ("sex", "F", {"shift_sex"}),
        ("age", 80.0, {"shift_age"}),
        ("view", "lateral", {"shift_view"}),
        ("contrast", 15.0, {"shift_contrast"}),
        ("mean", 200.0, {"shift_mean"}),
    ],
)
def test_each_shift_is_found_by_its_own_check(column: str, value: Any, failed: set[str]) -> None:
    before, now = table(), table(seed=1)
    now[column] = value
    assert failures(checks(now, baseline(before))) == failed


def test_other_shares_of_the_classes_or_a_lost_class_fail() -> None:
    before, now = table(600), table(600, seed=1)
    fewer = now[(now["label"] != "normal") | (now.index % 10 == 0)]
    assert failures(checks(fewer, baseline(before))) == {"shift_label"}
    lost = checks(now[now["label"] != "normal"], baseline(before))
    assert failures(lost) == {"lost_classes", "shift_label"}
    assert "normal" in lost["lost_classes"].finding


def test_a_class_of_one_patient_with_many_images_is_no_loss() -> None:
    before = table(600)
    one = before["label"] == "tuberculosis"
    before.loc[one, "group_key"] = digest("one patient")
    before.loc[one, "split"] = "train"
    found = checks(before[~one], baseline(before))
    assert found["lost_classes"].verdict == "warn"


def test_a_rare_class_that_is_gone_is_a_warning_where_chance_may_explain_it() -> None:
    before = table(600)
    rare = before[(before["label"] != "normal") | (before.index < 6)]
    gone = rare[rare["label"] != "normal"]
    assert checks(gone, baseline(rare))["lost_classes"].verdict == "warn"


def test_other_shares_of_the_sources_fail_and_a_new_source_is_a_warning() -> None:
    one, other = table(300), table(300, source="b")
    before = pd.concat([one, other], ignore_index=True)
    fewer = pd.concat([one, other.iloc[:30]], ignore_index=True)
    assert failures(checks(fewer, baseline(before))) == {"shift_source"}
    strange = table(300, source="c")
    strange["mean"], strange["view"] = 200.0, "AP"
    grown = checks(pd.concat([before, strange], ignore_index=True), baseline(before))
    assert failures(grown) == set()
    assert grown["sources"].verdict == "warn"
    assert "c" in grown["sources"].finding


def test_a_source_that_should_be_there_and_is_not_fails() -> None:
    before = pd.concat([table(60), table(60, source="b")], ignore_index=True)
    found = checks(table(60), baseline(before, missing_sources=("b",)))
    assert failures(found) == {"sources"}


def test_grey_values_of_another_transform_are_not_compared() -> None:
    now = table()
    now["mean"] = 220.0
    found = checks(now, baseline(table(), same_pixels=False))
    assert failures(found) == set()
    assert found["shift_mean"].verdict == "not evaluable"


def test_few_images_raise_no_false_alarm() -> None:
    for seed in range(30):
        one, other = table(12, seed=seed), table(12, seed=seed + 100, batch=1)
        other = other.sample(8, random_state=seed)
        assert failures(checks(other, baseline(one))) == set()


def test_a_profile_survives_being_written_down() -> None:
    whole = profile.of(table())
    assert profile.Profile(**asdict(whole)) == whole
    assert whole.people({"a"}) == pytest.approx(120)


@pytest.mark.parametrize(
    ("years", "band"), [(None, "unknown"), (0.5, "0-5"), (6, "6-17"), (64.9, "40-64"), (90, "65+")]
)
def test_ages_are_compared_in_bands(years: float | None, band: str) -> None:
    assert profile.age_band(years) == band


def test_an_impossible_limit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"validation\.chance is a share"):
        ValidationConfig(chance=2)


def test_the_page_names_every_check_and_escapes_what_sources_write() -> None:
    frame = table(30)
    frame["view"] = "<script>alert(1)</script>"
    found, whole = validate(subject(frame, licenses={"<b>mine</b>": 30}), baseline(table()), CONFIG)
    report = {"version": "v1", "baseline": "before", "judged_at": "2026-01-01"}
    page = checks_report.page(report, found, whole, profile.of(table()))
    assert all(one.name in page for one in found)
    assert "<script>alert" not in page
    assert "<b>mine" not in page
    assert "may not be trained on" in page
    assert "<polyline" in page
    assert "http" not in page.replace("http://www.w3.org", "")
