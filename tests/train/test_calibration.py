import numpy as np
import pytest

from train.calibration import (
    CalibrationConfig,
    calibrate,
    calibration_error,
    fit_abstention,
    fit_conformal,
    fit_temperature,
    prediction_sets,
    probabilities,
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
