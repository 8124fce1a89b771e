"""Out-of-distribution score of an image: relative Mahalanobis distance of the model's own features.

The score is how much further the features lie from every class than from the training images as a whole.
`train.release.fit_ood` fits the arrays, which are a file of the release bundle, and freezes the threshold, which
is in its card. Pure; a test compares the two implementations. Source: Ren et al. 2021, A Simple Fix to Mahalanobis
Distance for Improving Near-OOD Detection, arXiv:2106.09022.
"""

from collections.abc import Mapping

import numpy as np


class OodDetector:
    """The fitted score, made of the arrays of the bundle's file."""

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Args: arrays holds mean_D, whitening_DD of all training images; class_means_KD, class_whitening_DD."""
        self._mean_D = arrays["mean_D"].astype(np.float64)
        self._whitening_DD = arrays["whitening_DD"].astype(np.float64)
        self._class_whitening_DD = arrays["class_whitening_DD"].astype(np.float64)
        self._centres_KD = arrays["class_means_KD"].astype(np.float64) @ self._class_whitening_DD

    def score(self, features_ND: np.ndarray) -> np.ndarray:
        """Return a score for each image, float64 (N,): the larger, the less like the training images.

        Args: features_ND is what the model's last layer sees.
        """
        features_ND = features_ND.astype(np.float64)
        background_N = np.square((features_ND - self._mean_D) @ self._whitening_DD).sum(axis=1)
        places_ND = features_ND @ self._class_whitening_DD
        nearest_N = np.min(
            [np.square(places_ND - centre_D).sum(axis=1) for centre_D in self._centres_KD], axis=0
        )
        return nearest_N - background_N
