"""Fits the out-of-distribution detector: relative Mahalanobis distance of the model's features.

Fitted on training images, which the release bundle then describes by two means and two covariances; the threshold is
frozen at a stated share of false alarms among validation images. Serving reads the arrays with its own code
(`serve.outliers`), and a test compares the two. docs/decisions/0023 has the choice of method. Source: Ren et al.
2021, arXiv:2106.09022, equations 1 to 3; Lee et al. 2018, arXiv:1807.03888: the shared covariance.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import safetensors.numpy

METHOD = "relative_mahalanobis"
FILE = "outliers.safetensors"


@dataclass(frozen=True, kw_only=True)
class OutlierConfig:
    false_alarms: float = 0.01
    """Share of validation images that may be flagged. With too few images for that share it becomes one image's
    share, and the card says so."""
    images: int = 2000
    """Largest number of training images for the fit."""
    ridge: float = 1e-3
    """Added to each covariance, as a share of its mean variance, so that directions without any do not divide by 0."""

    def __post_init__(self) -> None:
        if not 0 < self.false_alarms < 1 or self.images < 1 or self.ridge <= 0:
            raise ValueError("false_alarms must be within 0..1, images and ridge positive")


@dataclass(frozen=True, kw_only=True)
class OodDetector:
    arrays: dict[str, np.ndarray]
    """float32, as `serve.outliers.OodDetector` takes them."""
    threshold: float
    """An image with a higher score is out of distribution."""
    false_alarms: float
    """Largest share of images like the validation images that are flagged all the same."""
    trained_on: int
    validated_on: int

    def score(self, features_ND: np.ndarray) -> np.ndarray:
        """Score each image (N,)."""
        background_N = _distances(features_ND, self.arrays["mean_D"], self.arrays["whitening_DD"])
        each_KN = [
            _distances(features_ND, mean_D, self.arrays["class_whitening_DD"])
            for mean_D in self.arrays["class_means_KD"]
        ]
        score_N: np.ndarray = np.min(each_KN, axis=0) - background_N
        return score_N

    def as_card(self) -> dict[str, Any]:
        """Return the card's entry; the arrays are a file of the bundle."""
        plain = {name: value for name, value in vars(self).items() if name != "arrays"}
        return {"method": METHOD, "file": FILE, **plain}

    def as_file(self) -> bytes:
        return safetensors.numpy.save(self.arrays)


def fit(
    features_ND: np.ndarray, labels_N: np.ndarray, validation_MD: np.ndarray, config: OutlierConfig
) -> OodDetector:
    """Fit the detector and its threshold.

    Args:
        features_ND: of training images, the inputs of the model's last layer.
        labels_N: their classes; a class without images is skipped.
        validation_MD: of validation images.
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
    # What is stored decides, rounding included.
    stored = {name: np.ascontiguousarray(array, np.float32) for name, array in arrays.items()}
    detector = OodDetector(
        arrays=stored,
        threshold=math.inf,
        false_alarms=config.false_alarms,
        trained_on=len(features_ND),
        validated_on=len(validation_MD),
    )
    threshold, share = _threshold(detector.score(validation_MD), config.false_alarms)
    return OodDetector(**{**vars(detector), "threshold": threshold, "false_alarms": share})


def _threshold(score_M: np.ndarray, false_alarms: float) -> tuple[float, float]:
    """Return the score of rank ceil((M + 1) (1 - share)) among M: a further image exceeds it with at most that share.

    With too few images for that rank it is the largest score, and the share 1 / (M + 1).
    Source: split conformal prediction, as `train.calibration.fit_conformal`.
    """
    rising_M = np.sort(score_M)
    rank = min(math.ceil((len(rising_M) + 1) * (1 - false_alarms)), len(rising_M))
    return float(rising_M[rank - 1]), max(false_alarms, 1 / (len(rising_M) + 1))


def _whitening(centred_ND: np.ndarray, ridge: float) -> np.ndarray:
    """W with W Wᵀ the inverse covariance, so that a squared length after W is a Mahalanobis distance."""
    covariance_DD = centred_ND.T @ centred_ND / len(centred_ND)
    values_D, vectors_DD = np.linalg.eigh(covariance_DD)
    floor = ridge * max(float(values_D.mean()), 1e-12)
    whitening_DD: np.ndarray = vectors_DD / np.sqrt(np.maximum(values_D, 0.0) + floor)
    return whitening_DD


def _distances(features_ND: np.ndarray, mean_D: np.ndarray, whitening_DD: np.ndarray) -> np.ndarray:
    centred_ND = features_ND.astype(np.float64) - mean_D.astype(np.float64)
    squared_N: np.ndarray = np.square(centred_ND @ whitening_DD.astype(np.float64)).sum(axis=1)
    return squared_N
