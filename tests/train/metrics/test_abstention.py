import numpy as np
import pytest

from train.metrics import abstention
from train.metrics.bootstrap import Resampling

NAMES = ("normal", "tuberculosis", "bone_normal")


def asked(count: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """The less sure, the more often wrong."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, count)
    sure = rng.uniform(0.4, 1.0, count)
    answers = np.where(rng.uniform(size=count) < sure, labels, (labels + 1) % 3)
    chances = np.repeat(((1 - sure) / 2)[:, None], 3, axis=1)
    chances[np.arange(count), answers] = sure
    return chances, labels


def test_a_false_normal_is_a_finding_that_is_answered_as_none() -> None:
    labels, answers = np.array([1, 1, 0, 1, 2]), np.array([0, 2, 1, 1, 0])
    missed, found = abstention.false_normal(labels, answers, NAMES)
    assert missed.tolist() == [True, True, False, False, False]
    assert found.tolist() == [True, True, False, True, False]


def test_who_answers_less_is_right_more_often_and_misses_less() -> None:
    chances, labels = asked()
    points = abstention.curve(chances, labels, NAMES, Resampling([str(i) for i in range(400)]))
    assert [round(one.answered, 2) for one in points] == list(abstention.SHARES)
    first, last = points[0], points[-1]
    assert first.accuracy.value == pytest.approx((chances.argmax(axis=1) == labels).mean())
    assert last.accuracy.low > first.accuracy.value
    assert first.false_normal_rate is not None
    assert last.false_normal_rate is not None
    assert last.false_normal_rate.value < first.false_normal_rate.value
    assert last.accuracy.images == 200
    assert last.flat()["answered"] == 0.5


def test_without_findings_no_rate_is_told() -> None:
    chances, _ = asked(40)
    points = abstention.curve(chances, np.zeros(40, int), NAMES, Resampling([str(i) for i in range(40)]))
    assert {one.false_normal_rate for one in points} == {None}
    assert "false_normal_rate" not in points[0].flat()
