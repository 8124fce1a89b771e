import numpy as np
import pytest
from sklearn.metrics import f1_score, precision_recall_fscore_support, roc_auc_score, roc_curve

from train.metrics import classification
from train.metrics.bootstrap import Resampling

NAMES = ("a", "b", "c", "d")


def answers(count: int = 300) -> tuple[np.ndarray, np.ndarray, list[str]]:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, count)
    chances = rng.dirichlet(np.ones(4), count)
    chances[np.arange(count), labels] += 0.3
    return labels, chances / chances.sum(axis=1, keepdims=True), [f"g{i // 3}" for i in range(count)]


def table() -> list[classification.ClassResult]:
    labels, chances, groups = answers()
    return classification.per_class(labels, chances, groups, NAMES, Resampling(groups))


def test_the_table_agrees_with_scikit_learn() -> None:
    labels, chances, _ = answers()
    top = chances.argmax(axis=1)
    precision, recall, f1, support = precision_recall_fscore_support(
        labels, top, labels=range(4), zero_division=0
    )
    for k, row in enumerate(table()[:3]):
        found = [getattr(row, name).value for name in ("precision", "recall", "f1", "auroc")]
        area = roc_auc_score(labels == k, chances[:, k])
        assert found == pytest.approx([precision[k], recall[k], f1[k], area])
        assert row.images == support[k]
    assert classification.balanced_accuracy(classification.confusion(labels, top, 4)) == pytest.approx(
        recall[:3].mean()
    )


def test_overall_figures_agree_with_scikit_learn_and_have_intervals() -> None:
    labels, chances, groups = answers()
    top = chances.argmax(axis=1)
    found = classification.overall(labels, top, 4, Resampling(groups))
    assert found.accuracy.value == pytest.approx((labels == top).mean())
    assert found.macro_f1.value == pytest.approx(f1_score(labels, top, labels=range(3), average="macro"))
    for one in (found.accuracy, found.balanced_accuracy, found.macro_f1):
        assert one.low < one.value < one.high
        assert (one.images, one.groups) == (300, 100)


def test_sensitivity_is_read_off_where_the_specificity_is_kept() -> None:
    labels, chances, _ = answers()
    for k, row in enumerate(table()[:3]):
        false_rates, true_rates, _ = roc_curve(labels == k, chances[:, k], drop_intermediate=False)
        kept = true_rates[false_rates <= 1 - classification.SPECIFICITY + 1e-9].max()
        assert row.sensitivity is not None
        assert row.sensitivity.value == pytest.approx(kept)
        assert row.sensitivity.low < kept < row.sensitivity.high


def test_the_curve_goes_from_nothing_to_all_and_agrees_with_scikit_learn() -> None:
    labels, chances, _ = answers()
    false_rates, true_rates = classification.roc(labels == 0, chances[:, 0])
    assert (false_rates[0], true_rates[0], false_rates[-1], true_rates[-1]) == (0, 0, 1, 1)
    area = np.trapezoid(true_rates, false_rates)
    assert area == pytest.approx(roc_auc_score(labels == 0, chances[:, 0]))


def test_the_interval_of_an_area_holds_what_many_samples_give() -> None:
    """The interval of one sample against the spread of 200 samples from the same source."""
    rng = np.random.default_rng(0)

    def sample() -> tuple[np.ndarray, np.ndarray]:
        positive = np.arange(120) < 40
        return positive, rng.normal(size=120) + positive

    areas = [roc_auc_score(*sample()) for _ in range(200)]
    found = classification.ranked(*sample(), Resampling([str(i) for i in range(120)]))
    assert found is not None
    width = found["auroc"].high - found["auroc"].low
    assert width == pytest.approx(4 * np.std(areas), rel=0.35)


def test_a_class_that_does_not_occur_has_no_figures() -> None:
    absent = table()[3]
    assert (absent.images, absent.groups, absent.recall, absent.f1) == (0, 0, None, None)
    assert (absent.auroc, absent.sensitivity) == (None, None)
    assert absent.flat()["recall_low"] is None


def test_ties_count_half() -> None:
    found = classification.ranked(np.array([True, False]), np.array([0.5, 0.5]), Resampling(["a", "b"]))
    assert found is not None
    assert found["auroc"].value == 0.5
    assert found["sensitivity"].value == 0.0


def test_the_mean_area_is_that_of_the_classes_that_occur() -> None:
    labels, chances, groups = answers()
    found = classification.macro_auroc(labels, chances, Resampling(groups))
    assert found is not None
    areas = [roc_auc_score(labels == k, chances[:, k]) for k in range(3)]
    assert found.value == pytest.approx(np.mean(areas))
    assert found.low < found.value < found.high
    assert classification.macro_auroc(np.zeros(300, int), chances, Resampling(groups)) is None


def test_each_cell_of_the_confusion_has_its_share_of_the_truth() -> None:
    labels, chances, groups = answers()
    top = chances.argmax(axis=1)
    found = classification.cells(labels, top, NAMES, Resampling(groups))
    assert sum(one.images for one in found) == 300
    (one,) = [one for one in found if (one.truth, one.answer) == ("a", "b")]
    assert one.share.value == pytest.approx(((labels == 0) & (top == 1)).sum() / (labels == 0).sum())
    assert one.share.low < one.share.value < one.share.high


def test_a_score_without_both_kinds_has_no_area() -> None:
    assert classification.ranked(np.array([True, True]), np.array([0.1, 0.5]), Resampling(["a", "b"])) is None
