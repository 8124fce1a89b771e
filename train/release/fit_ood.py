"""Fit the outlier score of a model: relative Mahalanobis distance of its features.

The arrays are fitted on training images, by their means and two covariances; the threshold is frozen at a stated
share of false alarms among validation images. Serving reads the arrays with its own code
(`serve.classifier.ood_score`), and a test compares the two. Why this score and no other: docs/decisions/0023.
Source: Ren et al. 2021, arXiv:2106.09022, equations 1 to 3; Lee et al. 2018, arXiv:1807.03888: the shared
covariance.
"""

import math
from dataclasses import dataclass

import numpy as np
import safetensors.numpy

from data.model_card import OUTLIERS_FILE, OutlierRule

METHOD = "relative_mahalanobis"


@dataclass(frozen=True, kw_only=True)
class OutlierConfig:
    false_alarms: float = 0.01
    """Share of validation images that may be called strange. With fewer than 1 / share validation images it is the
    share of one image, and the card says so."""
    images: int = 2000
    """Largest number of training images to fit on."""
    ridge: float = 1e-3
    """Added to each covariance, as a share of its mean variance, so that directions without any do not divide by 0."""

    def __post_init__(self) -> None:
        if not 0 < self.false_alarms < 1 or self.images < 1 or self.ridge <= 0:
            raise ValueError("false_alarms must be within 0..1, images and ridge positive")


@dataclass(frozen=True, kw_only=True)
class OodDetector:
    """A fitted score with its threshold."""

    arrays: dict[str, np.ndarray]
    """float32, as `serve.classifier.ood_score.OodDetector` takes them."""
    threshold: float
    """An image with a higher score is out of distribution."""
    false_alarms: float
    """Largest share of images like the validation images that are called strange all the same."""
    trained_on: int
    """Number of training images."""
    validated_on: int
    """Number of validation images."""

    def score(self, features_ND: np.ndarray) -> np.ndarray:
        """Return a score for each image, float64 (N,): the larger, the less like the training images."""
        background_N = _distances(features_ND, self.arrays["mean_D"], self.arrays["whitening_DD"])
        each_KN = [
            _distances(features_ND, mean_D, self.arrays["class_whitening_DD"])
            for mean_D in self.arrays["class_means_KD"]
        ]
        return np.min(each_KN, axis=0) - background_N

    def rule(self) -> OutlierRule:
        """Return the card's part of it; the arrays are a file of the bundle."""
        return OutlierRule(
            method=METHOD,
            file=OUTLIERS_FILE,
            threshold=self.threshold,
            false_alarms=self.false_alarms,
            trained_on=self.trained_on,
            validated_on=self.validated_on,
        )

    def as_file(self) -> bytes:
        """Return the arrays as safetensors."""
        return safetensors.numpy.save(self.arrays)


def fit(
    features_ND: np.ndarray, labels_N: np.ndarray, validation_MD: np.ndarray, config: OutlierConfig
) -> OodDetector:
    """Fit the arrays on training images and the threshold on validation images.

    Args:
        features_ND: what the model's last layer sees of training images.
        labels_N: their classes; a class without images has no mean.
        validation_MD: features of validation images.
    """
    features_ND = features_ND.astype(np.float64)
    present_K, place_N = np.unique(labels_N, return_inverse=True)
    means_KD = np.stack([features_ND[labels_N == label].mean(axis=0) for label in present_K])
    mean_D = features_ND.mean(axis=0)
    arrays = {
        "mean_D": mean_D,
        "whitening_DD": _whitening(features_ND - mean_D, config.ridge),
        "class_means_KD": means_KD,
        "class_whitening_DD": _whitening(features_ND - means_KD[place_N], config.ridge),
    }
    # The threshold is fitted with the arrays as they are stored, rounding included.
    stored = {name: np.ascontiguousarray(array, np.float32) for name, array in arrays.items()}
    unbounded = OodDetector(
        arrays=stored,
        threshold=math.inf,
        false_alarms=config.false_alarms,
        trained_on=len(features_ND),
        validated_on=len(validation_MD),
    )
    threshold, share = _threshold(unbounded.score(validation_MD), config.false_alarms)
    return OodDetector(**{**vars(unbounded), "threshold": threshold, "false_alarms": share})


def _threshold(score_M: np.ndarray, false_alarms: float) -> tuple[float, float]:
    """Return the score of rank ceil((M + 1) (1 - share)) among M, which at most that share of further images exceeds.

    With too few images for such a rank it is the largest score, and the share is 1 / (M + 1).
    Source: split conformal prediction, as `train.metrics.calibration.fit_conformal`.
    """
    rising_M = np.sort(score_M)
    rank = min(math.ceil((len(rising_M) + 1) * (1 - false_alarms)), len(rising_M))
    return float(rising_M[rank - 1]), max(false_alarms, 1 / (len(rising_M) + 1))


def _whitening(centred_ND: np.ndarray, ridge: float) -> np.ndarray:
    """Return W with W Wᵀ the inverse covariance, so that a squared length after W is a Mahalanobis distance."""
    covariance_DD = centred_ND.T @ centred_ND / len(centred_ND)
    values_D, vectors_DD = np.linalg.eigh(covariance_DD)
    floor = ridge * max(float(values_D.mean()), 1e-12)
    return vectors_DD / np.sqrt(np.maximum(values_D, 0.0) + floor)


def _distances(features_ND: np.ndarray, mean_D: np.ndarray, whitening_DD: np.ndarray) -> np.ndarray:
    centred_ND = features_ND.astype(np.float64) - mean_D.astype(np.float64)
    return np.square(centred_ND @ whitening_DD.astype(np.float64)).sum(axis=1)
