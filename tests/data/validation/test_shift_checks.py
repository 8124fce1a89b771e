"""A batch is compared with the version before it."""

from typing import Any

import pandas as pd
import pytest

from tests.data.validation.tables import baseline, checks, digest, failures, table


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
