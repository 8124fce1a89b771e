"""Calibration: temperature, calibration error, conformal sets, abstention.

Pure arithmetic on logits and labels, independent of the model. Everything is fitted on validation data and measured
on test data. scipy fits and computes the softmax; scikit-learn's calibrators want an estimator, not logits.
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from data.model_card import Calibration
from train.metrics.bootstrap import INTERVAL, Estimate, Resampling, ratio

BINS = 15
TEMPERATURES = (0.05, 20.0)


@dataclass(frozen=True, kw_only=True)
class CalibrationConfig:
    coverage: float = 0.9
    answer_accuracy: float = 0.9
    """Accuracy that answers without abstention should reach on validation data ..."""
    largest_abstention: float = 0.2
    """... unless more than this share of them would be abstained."""


def calibrate(logits_NK: np.ndarray, labels_N: np.ndarray, config: CalibrationConfig) -> Calibration:
    """Fit all parameters on the validation split.

    The one temperature is fitted on the same images as the conformal threshold; with a single parameter the
    sets stay close to exact, and evaluation measures their coverage on test data.
    """
    temperature = fit_temperature(logits_NK, labels_N)
    probabilities_NK = probabilities(logits_NK, temperature)
    return Calibration(
        temperature=temperature,
        conformal_threshold=fit_conformal(probabilities_NK, labels_N, config.coverage),
        coverage=config.coverage,
        abstain_below=fit_abstention(probabilities_NK, labels_N, config),
    )


def probabilities(logits_NK: np.ndarray, temperature: float) -> np.ndarray:
    """Compute calibrated probabilities, float64."""
    return softmax(logits_NK.astype(np.float64) / temperature, axis=1)


def fit_temperature(logits_NK: np.ndarray, labels_N: np.ndarray) -> float:
    """Find the temperature with the smallest negative log-likelihood.

    Source: Guo et al. 2017, On Calibration of Modern Neural Networks, section 4.2.
    """
    logits_NK = logits_NK.astype(np.float64)
    rows = np.arange(len(labels_N))

    def loss(log_temperature: float) -> float:
        return -float(log_softmax(logits_NK / np.exp(log_temperature), axis=1)[rows, labels_N].mean())

    low, high = np.log(TEMPERATURES)
    return float(np.exp(minimize_scalar(loss, bounds=(low, high), method="bounded").x))


def calibration_error(probabilities_NK: np.ndarray, labels_N: np.ndarray, bins: int = BINS) -> float:
    """Compute the expected calibration error of the top answer over bins of equal mass.

    Equal-mass bins (Nguyen & O'Connor 2015) instead of Guo et al.'s equal-width ones: with a few hundred
    images many equal-width bins are almost empty, and their noise is counted as error.
    """
    return float(
        sum(
            part.weight * abs(part.confidence - part.accuracy)
            for part in reliability(probabilities_NK, labels_N, bins)
        )
    )


@dataclass(frozen=True, kw_only=True)
class Bin:
    """Images of similar confidence: one point of the reliability diagram."""

    confidence: float
    """Mean calibrated probability of the top answer."""
    accuracy: float
    """Share of top answers that are right."""
    weight: float
    """Share of all images."""


def estimate_calibration_error(
    probabilities_NK: np.ndarray, labels_N: np.ndarray, resampling: Resampling
) -> Estimate:
    """Estimate `calibration_error` with an interval.

    A sum of absolute gaps grows with noise, so resampled values lie above the measured one; the interval is
    mirrored at the measured value (the basic bootstrap), which takes that bias off again. The bins stay.
    Source: Davison & Hinkley 1997, Bootstrap Methods and their Application, section 5.2.
    """
    value = calibration_error(probabilities_NK, labels_N)
    confidence_N = probabilities_NK.max(axis=1)
    gaps_ND = np.zeros((len(labels_N), BINS + 1))
    for nth, part in enumerate(_parts(confidence_N, BINS)):
        gaps_ND[part, nth] = confidence_N[part] - (probabilities_NK[part].argmax(axis=1) == labels_N[part])
    gaps_ND[:, BINS] = 1
    sums_RD = resampling.sums(gaps_ND)
    drawn = resampling.estimate(value, np.abs(sums_RD[:, :BINS]).sum(axis=1) / sums_RD[:, BINS])
    return replace(drawn, low=max(0.0, 2 * value - drawn.high), high=max(value, 2 * value - drawn.low))


def reliability(probabilities_NK: np.ndarray, labels_N: np.ndarray, bins: int = BINS) -> list[Bin]:
    """Return the bins whose gaps `calibration_error` sums, least confident first."""
    confidence_N = probabilities_NK.max(axis=1)
    right_N = probabilities_NK.argmax(axis=1) == labels_N
    return [
        Bin(
            confidence=float(confidence_N[part].mean()),
            accuracy=float(right_N[part].mean()),
            weight=len(part) / len(labels_N),
        )
        for part in _parts(confidence_N, bins)
    ]


def _parts(confidence_N: np.ndarray, bins: int) -> list[np.ndarray]:
    """Return the indices of each bin's images, in bins as equal as possible."""
    order_N = np.argsort(confidence_N, kind="stable")
    return [part for part in np.array_split(order_N, bins) if len(part)]


def fit_conformal(probabilities_NK: np.ndarray, labels_N: np.ndarray, coverage: float) -> float:
    """Find the probability from which a class belongs to the prediction set (split conformal, LAC score).

    The score of an image is 1 - p(truth); the set holds every class whose score is at most the score of rank
    ceil((n + 1) * coverage) on held-out images, that is, whose p is at least what is returned here. With too
    few images for that rank it is 0: every class belongs to the set.
    Source: Sadinle, Lei & Wasserman 2019; Angelopoulos & Bates 2021, section 1.
    """
    truth_N = np.sort(probabilities_NK[np.arange(len(labels_N)), labels_N])[::-1]
    rank = int(np.ceil((len(truth_N) + 1) * coverage))
    return float(truth_N[rank - 1]) if rank <= len(truth_N) else 0.0


def prediction_sets(probabilities_NK: np.ndarray, threshold: float) -> np.ndarray:
    """Return the conformal sets, sets_NK, bool; the top class always belongs, so that no set is empty."""
    sets_NK: np.ndarray = probabilities_NK >= threshold
    sets_NK[np.arange(len(sets_NK)), probabilities_NK.argmax(axis=1)] = True
    return sets_NK


def estimate_coverage(
    truth_N: np.ndarray,
    resampling: Resampling,
    calibration: Calibration,
    held_out_N: np.ndarray,
    held_out: Resampling,
) -> Estimate:
    """Estimate the share of conformal sets that hold the truth, without the forced top class, as the guarantee has
    it.

    The guarantee is over calibration and test images together, so patients of both sides are drawn: each
    resample fits the threshold anew on drawn validation patients and measures it on drawn test patients. The
    interval is that spread around what the card's own threshold reaches. The guarantee is exact for scores
    without ties; a very sure model has many of exactly 1, so the lower end counts no image on the threshold.

    Args:
        truth_N: calibrated probability of the true class, test images.
        held_out_N: the same of the validation images, on which the card's threshold was fitted.
    """
    order_M = np.argsort(-held_out_N, kind="stable")
    parts = []
    for w_CN, v_CM in zip(resampling.weights(), held_out.weights(), strict=True):
        counts_CM = v_CM[:, order_M].cumsum(axis=1)
        rank_C = np.ceil((counts_CM[:, -1] + 1) * calibration.coverage)
        nth_C = (counts_CM < rank_C[:, None]).sum(axis=1)
        threshold_C1 = np.append(held_out_N[order_M], 0.0)[nth_C][:, None]
        covered_2CN = np.stack([truth_N > threshold_C1, truth_N >= threshold_C1])
        parts.append(ratio((w_CN * covered_2CN).sum(axis=2), w_CN.sum(axis=1)))
    above_R, from_R = np.concatenate(parts, axis=1)
    threshold = calibration.conformal_threshold
    low = (truth_N > threshold).mean() + np.percentile(above_R, INTERVAL[0]) - above_R.mean()
    value = (truth_N >= threshold).mean()
    high = value + np.percentile(from_R, INTERVAL[1]) - from_R.mean()
    return Estimate(
        value=float(value),
        low=max(0.0, float(low)),
        high=min(1.0, float(high)),
        images=resampling.images,
        groups=resampling.groups,
    )


def fit_abstention(probabilities_NK: np.ndarray, labels_N: np.ndarray, config: CalibrationConfig) -> float:
    """Find the lowest confidence from which answers are accurate enough, within the largest abstention."""
    confidence_N = probabilities_NK.max(axis=1)
    right_N = probabilities_NK.argmax(axis=1) == labels_N
    order_N = np.argsort(confidence_N, kind="stable")
    rising_N = confidence_N[order_N]
    # accuracy of answering all from the i-th least confident on
    accuracy_N = right_N[order_N][::-1].cumsum()[::-1] / np.arange(len(order_N), 0, -1)
    good = np.flatnonzero(accuracy_N >= config.answer_accuracy)
    first = int(good[0]) if len(good) else len(order_N)
    first = min(first, int(config.largest_abstention * len(order_N)))
    return float(rising_N[first]) if first else 0.0
