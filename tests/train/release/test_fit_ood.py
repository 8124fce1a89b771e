from collections.abc import Mapping

import numpy as np
import pytest
import safetensors.numpy

from serve.classifier import ood_score as served
from train.release.fit_ood import OodDetector, OutlierConfig, fit

DEPTH = 24
CENTRES_KD = np.random.default_rng(7).normal(size=(4, DEPTH)) * 3


def features(count: int, seed: int, *, off: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Of four classes in a few directions; `off` moves them where no class lies."""
    rng = np.random.default_rng(seed)
    labels_N = np.arange(count) % len(CENTRES_KD)
    noise_ND = rng.normal(size=(count, DEPTH)) * np.linspace(0.2, 1.0, DEPTH)
    away_D = np.random.default_rng(8).normal(size=DEPTH) * off
    return (CENTRES_KD[labels_N] + noise_ND + away_D).astype(np.float32), labels_N


def fitted(count: int = 1200, validated: int = 800, **settings: float) -> OodDetector:
    known_ND, labels_N = features(count, 0)
    return fit(known_ND, labels_N, features(validated, 1)[0], OutlierConfig(**settings))


def share(found: OodDetector, features_ND: np.ndarray) -> float:
    return float((found.score(features_ND) > found.threshold).mean())


def test_new_images_like_the_known_ones_are_called_strange_as_often_as_promised() -> None:
    found = fitted(false_alarms=0.05)
    assert share(found, features(8000, 2)[0]) == pytest.approx(0.05, abs=0.02)
    assert found.rule().false_alarms == 0.05


def test_what_lies_beside_every_class_is_strange_and_what_lies_in_one_is_not() -> None:
    found = fitted()
    assert share(found, features(400, 3, off=1.5)[0]) > 0.95
    between_ND = (features(400, 4)[0] + features(401, 5)[0][1:]) / 2  # halfway from one class to the next
    assert share(found, between_ND) > 0.95


def test_with_few_validation_images_the_card_promises_what_they_can_show() -> None:
    found = fitted(validated=19)
    assert found.false_alarms == pytest.approx(1 / 20)
    assert found.threshold == found.score(features(19, 1)[0]).max()


def test_a_class_without_images_and_a_direction_without_spread_do_no_harm() -> None:
    known_ND, labels_N = features(400, 0)
    known_ND[:, 3] = 1.0
    some = labels_N != 2
    found = fit(known_ND[some], labels_N[some], known_ND[some], OutlierConfig())
    assert found.arrays["class_means_KD"].shape == (3, DEPTH)
    assert np.isfinite(found.score(known_ND)).all()


def test_serving_reads_the_file_and_finds_the_same() -> None:
    found = fitted()
    arrays: Mapping[str, np.ndarray] = safetensors.numpy.load(found.as_file())
    for off in (0.0, 1.5):
        features_ND = features(50, 6, off=off)[0]
        ours_N = served.OodDetector(arrays).score(features_ND)
        assert np.allclose(ours_N, found.score(features_ND), rtol=1e-6, atol=1e-6)
    assert found.rule().file == "outliers.safetensors"


@pytest.mark.parametrize(
    "wrong", [{"false_alarms": 0.0}, {"false_alarms": 1.0}, {"ridge": 0.0}, {"images": 0}]
)
def test_an_impossible_setting_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="false_alarms"):
        OutlierConfig(**wrong)  # type: ignore[arg-type]
