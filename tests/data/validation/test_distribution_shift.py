"""How far two sets of images differ, on counts made by hand and at random."""

import numpy as np
import pytest

from data.validation import distribution_shift


def test_the_same_shares_are_no_shift_however_many_images_there_are() -> None:
    shift = distribution_shift.shares({"a": 50, "b": 50}, {"a": 5000, "b": 5000}, (100, 10_000))
    assert shift.size < 1e-6
    assert shift.p > 0.99


def test_the_index_is_the_textbook_s() -> None:
    shift = distribution_shift.shares({"a": 500_000, "b": 500_000}, {"a": 800_000, "b": 200_000}, (100, 100))
    assert shift.size == pytest.approx(0.3 * np.log(0.8 / 0.5) - 0.3 * np.log(0.2 / 0.5), abs=1e-4)


def test_what_few_patients_show_is_not_certain() -> None:
    before, after = {"a": 50, "b": 50}, {"a": 90, "b": 10}
    many, few = (distribution_shift.shares(before, after, (n, n)) for n in (100, 8))
    assert many.size == few.size > 0.25
    assert many.beyond(0.25, 1e-4)
    assert not few.beyond(0.25, 1e-4)


def test_a_side_without_images_says_nothing_and_one_value_alone_cannot_shift() -> None:
    assert distribution_shift.shares({}, {"a": 9, "b": 1}, (0, 10)) == distribution_shift.NO_SHIFT
    assert distribution_shift.shares({"a": 9}, {"a": 5}, (9, 5)) == distribution_shift.Shift(
        size=0, p=1, groups=(9, 5)
    )


def test_rare_values_are_judged_together() -> None:
    before = {"a": 400, **{f"r{n}": 1 for n in range(10)}}
    after = {"a": 400, **{f"s{n}": 1 for n in range(10)}}
    assert distribution_shift.shares(before, after, (410, 410)).p > 0.9


def histogram(values: np.ndarray) -> np.ndarray:
    return np.bincount(values.clip(0, 255).astype(int), minlength=256)


def test_brighter_images_are_a_shift_of_the_distance_of_their_distributions() -> None:
    rng = np.random.default_rng(1)
    dark, bright = rng.normal(100, 10, 400), rng.normal(100, 10, 400)
    bright[:200] = 240
    shift = distribution_shift.grey_values({"x": histogram(dark)}, {"x": histogram(bright)}, (400, 400))
    assert shift.size == pytest.approx(0.5, abs=0.05)
    assert shift.p < 1e-20


def test_another_mix_of_classes_alone_is_no_shift_of_grey_values() -> None:
    rng = np.random.default_rng(2)
    limb, chest = rng.normal(50, 5, 900), rng.normal(150, 5, 900)
    before = {"limb": histogram(limb[:400]), "chest": histogram(chest[:100])}
    after = {"limb": histogram(limb[400:500]), "chest": histogram(chest[100:500])}
    shift = distribution_shift.grey_values(before, after, (500, 500))
    assert shift.size < 0.1
    assert shift.groups[0] < 500
    assert not shift.beyond(0.2, 1e-4)
    naive = distribution_shift.grey_values(
        {"x": sum(before.values(), np.zeros(256))}, {"x": sum(after.values(), np.zeros(256))}, (500, 500)
    )
    assert naive.beyond(0.2, 1e-4)


def test_classes_that_only_one_side_has_are_left_out() -> None:
    assert (
        distribution_shift.grey_values({"a": np.ones(256)}, {"b": np.ones(256)}, (10, 10))
        == distribution_shift.NO_SHIFT
    )


def test_one_share_in_ten_is_missed_by_chance_in_a_third_of_ten_patients() -> None:
    assert distribution_shift.chance_of_none(0.1, 10) == pytest.approx(0.349, abs=0.001)


def test_random_halves_raise_no_alarm_while_size_or_chance_alone_would() -> None:
    rng = np.random.default_rng(3)
    alarms, by_size, by_chance, rounds = 0, 0, 0, 400
    for _ in range(rounds):
        patients = int(rng.integers(8, 200))
        halves = [rng.multinomial(patients, [0.5, 0.2, 0.1, 0.1, 0.05, 0.05]) for _ in range(2)]
        shift = distribution_shift.shares(
            *(dict(enumerate_as_text(one)) for one in halves), (patients, patients)
        )
        alarms += shift.beyond(0.25, 1e-4)
        by_size += shift.size >= 0.25
        by_chance += shift.p < 0.05
    assert alarms == 0
    assert by_size > 20
    assert by_chance > 5


def enumerate_as_text(counts: np.ndarray) -> list[tuple[str, int]]:
    return [(str(n), int(count)) for n, count in enumerate(counts)]
