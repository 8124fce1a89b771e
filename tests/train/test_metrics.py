import numpy as np
import pytest
from sklearn.metrics import precision_recall_fscore_support, roc_auc_score

from train import metrics

NAMES = ("a", "b", "c", "d")


def answers(count: int = 300) -> tuple[np.ndarray, np.ndarray, list[str]]:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, count)
    chances = rng.dirichlet(np.ones(4), count)
    chances[np.arange(count), labels] += 0.3
    return labels, chances / chances.sum(axis=1, keepdims=True), [f"g{i // 3}" for i in range(count)]


def test_the_table_agrees_with_scikit_learn() -> None:
    labels, chances, groups = answers()
    top = chances.argmax(axis=1)
    table = metrics.per_class(labels, chances, groups, NAMES)
    precision, recall, f1, support = precision_recall_fscore_support(
        labels, top, labels=range(4), zero_division=0
    )
    for k in range(3):
        row = table[k]
        assert (row.precision, row.recall, row.f1) == pytest.approx((precision[k], recall[k], f1[k]))
        assert row.images == support[k]
        assert row.auroc == pytest.approx(roc_auc_score(labels == k, chances[:, k]))
    assert metrics.balanced_accuracy(metrics.confusion(labels, top, 4)) == pytest.approx(recall[:3].mean())


def test_a_class_that_does_not_occur_has_no_figures() -> None:
    absent = metrics.per_class(*answers(), NAMES)[3]
    assert (absent.images, absent.groups, absent.recall, absent.f1, absent.auroc) == (0, 0, None, None, None)


def test_ties_count_half() -> None:
    assert metrics.auroc(np.array([True, False]), np.array([0.5, 0.5])) == 0.5


def test_the_interval_is_wider_when_images_come_from_fewer_patients() -> None:
    hits = np.repeat(np.array([True, True, True, False] * 5), 10)
    many = metrics.share(hits, [str(i) for i in range(200)])
    few = metrics.share(hits, [str(i // 10) for i in range(200)])
    assert many.value == few.value == 0.75
    assert few.high - few.low > 2 * (many.high - many.low)
    assert few.low < 0.75 < few.high
    assert (few.images, few.groups) == (200, 20)


def test_the_interval_is_the_same_each_time() -> None:
    hits = np.array([True, False, True, True])
    assert metrics.share(hits, list("aabb")) == metrics.share(hits, list("aabb"))


def test_each_source_has_its_own_share() -> None:
    hits = np.array([True, True, False, True])
    by = metrics.share_by(hits, list("abcd"), ["x", "x", "y", "y"])
    assert (by["x"].value, by["y"].value) == (1.0, 0.5)
