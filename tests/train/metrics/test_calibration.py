import numpy as np
import pytest

from train.metrics.bootstrap import Estimate, Resampling
from train.metrics.calibration import (
    Calibration,
    CalibrationConfig,
    calibrate,
    calibration_error,
    estimate_calibration_error,
    estimate_coverage,
    fit_abstention,
    fit_conformal,
    fit_temperature,
    prediction_sets,
    probabilities,
    reliability,
)


def sample(count: int, scale: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are `scale` times too sure, and labels drawn from what they should say."""
    rng = np.random.default_rng(seed)
    honest_NK = rng.normal(size=(count, 5)) * 2
    chances_NK = probabilities(honest_NK, 1.0)
    labels_N = np.array([rng.choice(5, p=row) for row in chances_NK])
    return honest_NK * scale, labels_N


def test_the_temperature_undoes_overconfidence() -> None:
    logits, labels = sample(4000, scale=3.0)
    temperature = fit_temperature(logits, labels)
    assert temperature == pytest.approx(3.0, rel=0.1)
    before = calibration_error(probabilities(logits, 1.0), labels)
    after = calibration_error(probabilities(logits, temperature), labels)
    assert after < 0.03 < 0.1 < before


def test_the_calibration_error_of_a_coin_called_certain_is_a_half() -> None:
    certain = np.tile([1.0, 0.0], (100, 1))
    labels = np.arange(100) % 2
    assert calibration_error(certain, labels) == pytest.approx(0.5)
    assert calibration_error(np.full((100, 2), 0.5), labels, bins=1) == pytest.approx(0.0)


def test_conformal_sets_cover_what_was_asked_on_images_not_seen() -> None:
    logits, labels = sample(1000, scale=1.0)
    threshold = fit_conformal(probabilities(logits, 1.0), labels, 0.9)
    logits, labels = sample(8000, scale=1.0, seed=1)
    sets = prediction_sets(probabilities(logits, 1.0), threshold)
    assert sets[np.arange(8000), labels].mean() == pytest.approx(0.9, abs=0.03)
    assert sets.sum(axis=1).mean() < 4


def test_with_too_few_images_every_class_is_in_the_set() -> None:
    logits, labels = sample(5, scale=1.0)
    threshold = fit_conformal(probabilities(logits, 1.0), labels, 0.9)
    assert threshold == 0.0
    assert prediction_sets(probabilities(logits, 1.0), threshold).all()


def test_no_prediction_set_is_empty() -> None:
    sets = prediction_sets(np.array([[0.4, 0.35, 0.25]]), 0.9)
    assert sets.tolist() == [[True, False, False]]


def test_abstention_keeps_the_answers_that_are_right_often_enough() -> None:
    confidence = np.linspace(0.55, 1.0, 100)
    chances = np.column_stack([confidence, 1 - confidence])
    labels = np.zeros(100, dtype=np.int64)
    labels[:34] = 1  # the least confident third is wrong
    config = CalibrationConfig(answer_accuracy=0.9, largest_abstention=0.5)
    threshold = fit_abstention(chances, labels, config)
    answered = chances.max(axis=1) >= threshold
    right = chances.argmax(axis=1) == labels
    assert right[answered].mean() >= 0.9
    assert answered.mean() >= 0.5


def test_a_poor_model_abstains_on_no_more_than_the_largest_share() -> None:
    logits, _ = sample(500, scale=1.0)
    wrong = (logits.argmax(axis=1) + 1) % 5
    threshold = fit_abstention(probabilities(logits, 1.0), wrong, CalibrationConfig(largest_abstention=0.2))
    assert (probabilities(logits, 1.0).max(axis=1) < threshold).mean() <= 0.2


def test_calibrate_fits_everything_that_the_card_holds() -> None:
    fitted = calibrate(*sample(500, scale=2.0), CalibrationConfig())
    assert fitted.temperature == pytest.approx(2.0, rel=0.3)
    assert 0 < fitted.conformal_threshold < 1
    assert fitted.coverage == 0.9
    assert 0 <= fitted.abstain_below < 1


def test_bins_are_of_equal_mass_and_their_gaps_make_the_error() -> None:
    logits, labels = sample(600, scale=3.0)
    chances = probabilities(logits, 1.0)
    bins = reliability(chances, labels)
    assert len(bins) == 15
    assert {round(one.weight * 600) for one in bins} == {40}
    assert [one.confidence for one in bins] == sorted(one.confidence for one in bins)
    gaps = sum(one.weight * abs(one.confidence - one.accuracy) for one in bins)
    assert gaps == pytest.approx(calibration_error(chances, labels))


def test_the_error_of_a_sure_and_of_an_honest_model_have_intervals_apart() -> None:
    logits, labels = sample(600, scale=3.0)
    groups = [str(i // 2) for i in range(600)]
    sure = estimate_calibration_error(probabilities(logits, 1.0), labels, Resampling(groups))
    honest = estimate_calibration_error(probabilities(logits, 3.0), labels, Resampling(groups))
    assert sure.low <= sure.value <= sure.high
    assert 0 <= honest.low <= honest.value <= honest.high
    assert honest.high < sure.low


def covered(threshold: float | None, seed: int, count: int = 300) -> Estimate:
    """What 300 test and 300 validation images tell of a model that is honest; None is the fitted threshold."""
    rng = np.random.default_rng(seed)
    held_out, tested = (rng.uniform(size=count) for _ in range(2))
    fitted = fit_conformal(np.column_stack([held_out, 1 - held_out]), np.zeros(count, int), 0.9)
    return estimate_coverage(
        tested,
        Resampling([str(i) for i in range(count)]),
        Calibration(
            temperature=1.0,
            conformal_threshold=fitted if threshold is None else threshold,
            coverage=0.9,
            abstain_below=0.0,
        ),
        held_out,
        Resampling([str(i) for i in range(count)], seed=1),
    )


def test_the_promise_lies_inside_the_interval_of_nearly_every_honest_model() -> None:
    """An interval over test patients alone misses a fifth to a third of them: it forgets the validation images."""
    found = [covered(None, seed) for seed in range(60)]
    assert sum(one.low <= 0.9 <= one.high for one in found) >= 54


def test_a_threshold_that_was_not_fitted_on_validation_data_is_found_out() -> None:
    for threshold, share in ((0.3, 0.7), (0.0, 1.0)):
        found = covered(threshold, seed=0)
        assert found.value == pytest.approx(share, abs=0.06)
        assert not found.low <= 0.9 <= found.high


def test_a_model_that_is_always_sure_and_right_keeps_the_promise_though_its_scores_are_ties() -> None:
    groups = [str(i) for i in range(200)]
    card = Calibration(temperature=1.0, conformal_threshold=1.0, coverage=0.9, abstain_below=0.0)
    found = estimate_coverage(
        np.ones(200), Resampling(groups), card, np.ones(200), Resampling(groups, seed=1)
    )
    assert (found.value, found.high) == (1.0, 1.0)
    assert found.low <= 0.9
