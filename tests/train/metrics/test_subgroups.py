import numpy as np
import pytest

from train.metrics import subgroups
from train.metrics.subgroups import UNKNOWN, attributes

NAMES = ("normal", "tuberculosis")
COUNT = 300
GROUPS = [f"p{i // 2}" for i in range(COUNT)]


def answered(
    missed_in_women: float, missed_in_men: float = 0.05
) -> tuple[np.ndarray, np.ndarray, list[str | None]]:
    """Half of the images show a finding; every third patient's sex is not known."""
    rng = np.random.default_rng(0)
    labels = np.arange(COUNT) % 2
    sexes: list[str | None] = [("F", "M", None)[i // 2 % 3] for i in range(COUNT)]
    rate = np.array([missed_in_women if one == "F" else missed_in_men for one in sexes])
    answers = np.where((labels == 1) & (rng.uniform(size=COUNT) < rate), 0, labels)
    return labels, answers, sexes


def known(sexes: list[str | None]) -> dict[str, np.ndarray]:
    ages = [None if i % 10 == 0 else float(i % 90) for i in range(COUNT)]
    return attributes(sexes, ages, ["pa" if i % 3 else None for i in range(COUNT)], ["s"] * COUNT)


def gap(attribute: str, missed_in_women: float, least_images: int = 40) -> subgroups.Gap:
    labels, answers, sexes = answered(missed_in_women)
    found = subgroups.gaps(labels, answers, NAMES, known(sexes), GROUPS, least_images=least_images)
    return next(one for one in found if one.attribute == attribute)


def test_the_table_has_a_row_a_subgroup_with_what_is_unknown_as_one() -> None:
    labels, answers, sexes = answered(0.4)
    rows = subgroups.table(labels, answers, NAMES, known(sexes), GROUPS)
    by = {(one.attribute, one.subgroup): one for one in rows}
    assert {name for attribute, name in by if attribute == "sex"} == {"F", "M", UNKNOWN}
    assert {name for attribute, name in by if attribute == "view"} == {"PA", UNKNOWN}
    women = by["sex", "F"]
    missed = (answers == 0) & (labels == 1) & (np.array(sexes) == "F")
    assert women.false_normal_rate is not None
    assert women.false_normal_rate.value == pytest.approx(missed.sum() / 50)
    assert (women.images, women.findings, women.false_normal_rate.groups) == (100, 50, 50)
    assert women.accuracy.low < women.accuracy.value < women.accuracy.high
    assert by["age", "under 18"].images + by["age", "75 and over"].images < COUNT
    assert sum(one.images for (attribute, _), one in by.items() if attribute == "age") == COUNT


def test_a_model_that_misses_more_in_women_has_a_gap_that_chance_does_not_explain() -> None:
    biased, fair = gap("sex", 0.5), gap("sex", 0.05)
    assert biased.estimate is not None
    assert fair.estimate is not None
    assert (biased.most, biased.least) == ("F", "M")
    assert biased.estimate.low > 0.2
    assert fair.estimate.low <= 0.1
    assert biased.images == 50


def test_the_unknown_are_no_side_of_a_gap_and_one_subgroup_has_none() -> None:
    assert gap("view", 0.5).estimate is None
    assert gap("source", 0.5).estimate is None


def test_subgroups_that_are_too_small_are_not_compared_and_the_count_is_told() -> None:
    found = gap("sex", 0.5, least_images=51)
    assert (found.estimate, found.images) == (None, 50)


def test_a_subgroup_without_any_finding_has_no_rate() -> None:
    labels = np.zeros(40, int)
    rows = subgroups.table(
        labels, labels, NAMES, attributes(["F"] * 40, [50.0] * 40, ["PA"] * 40, ["s"] * 40), GROUPS[:40]
    )
    assert {one.false_normal_rate for one in rows} == {None}
    assert "false_normal_rate" not in rows[0].flat()


def test_ages_fall_into_their_bands() -> None:
    bands = attributes([None] * 6, [0.5, 17.9, 18.0, 59.0, 90.0, None], [None] * 6, ["s"] * 6)["age"]
    assert bands.tolist() == ["under 18", "under 18", "18 to 39", "40 to 59", "75 and over", UNKNOWN]
