"""How good answers are: accuracy, per-class tables, confusion, AUROC, each with an interval over patients.

Pure arithmetic on labels, answers and probabilities.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.stats import rankdata

RESAMPLES = 2000
INTERVAL = (2.5, 97.5)


@dataclass(frozen=True, kw_only=True)
class ClassResult:
    """One class on one split; None where it cannot be computed."""

    label: str
    images: int
    groups: int
    """Patients, or groups of near-duplicates."""
    precision: float | None
    recall: float | None
    f1: float | None
    auroc: float | None
    """This class against all others."""


@dataclass(frozen=True, kw_only=True)
class Share:
    """A share of images with its 95 % bootstrap interval over groups."""

    value: float
    low: float
    high: float
    images: int
    groups: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def confusion(labels_N: np.ndarray, answers_N: np.ndarray, classes: int) -> np.ndarray:
    """counts_KK: rows are the truth, columns the answers."""
    return np.bincount(labels_N * classes + answers_N, minlength=classes**2).reshape(classes, classes)


def balanced_accuracy(confusion_KK: np.ndarray) -> float:
    """Mean recall over the classes that occur."""
    counts_K = confusion_KK.sum(axis=1)
    present_K = counts_K > 0
    return float((confusion_KK.diagonal()[present_K] / counts_K[present_K]).mean())


def per_class(
    labels_N: np.ndarray, probabilities_NK: np.ndarray, groups_N: Sequence[str], names: Sequence[str]
) -> list[ClassResult]:
    """One row a class of the taxonomy, in its order."""
    confusion_KK = confusion(labels_N, probabilities_NK.argmax(axis=1), len(names))
    groups = np.asarray(groups_N)
    rows = []
    for k, name in enumerate(names):
        right, answered, true = (
            int(n) for n in (confusion_KK[k, k], confusion_KK[:, k].sum(), confusion_KK[k].sum())
        )
        rows.append(
            ClassResult(
                label=name,
                images=true,
                groups=len(np.unique(groups[labels_N == k])),
                precision=right / answered if answered else None,
                recall=right / true if true else None,
                f1=2 * right / (answered + true) if true else None,
                auroc=auroc(labels_N == k, probabilities_NK[:, k]),
            )
        )
    return rows


def auroc(positive_N: np.ndarray, scores_N: np.ndarray) -> float | None:
    """Area under the ROC curve by ranks (Mann-Whitney), ties counted half; None without both kinds."""
    positives = int(positive_N.sum())
    negatives = len(positive_N) - positives
    if not positives or not negatives:
        return None
    ranks = float(rankdata(scores_N)[positive_N].sum())
    return (ranks - positives * (positives + 1) / 2) / (positives * negatives)


def share(hits_N: np.ndarray, groups_N: Sequence[str], *, seed: int = 0) -> Share:
    """The share of true values, with an interval from resampling whole groups.

    Images of one patient are not independent, so patients are drawn, not images.
    """
    _, group_N = np.unique(np.asarray(groups_N), return_inverse=True)
    groups = int(group_N.max()) + 1
    size_G = np.bincount(group_N, minlength=groups)
    hits_G = np.bincount(group_N, weights=hits_N.astype(np.float64), minlength=groups)
    rng = np.random.default_rng(seed)
    picked_RG = rng.integers(groups, size=(RESAMPLES, groups))
    shares_R = hits_G[picked_RG].sum(axis=1) / size_G[picked_RG].sum(axis=1)
    low, high = np.percentile(shares_R, INTERVAL)
    return Share(
        value=float(hits_N.mean()), low=float(low), high=float(high), images=len(hits_N), groups=groups
    )


def share_by(
    hits_N: np.ndarray, groups_N: Sequence[str], keys_N: Sequence[str], *, seed: int = 0
) -> dict[str, Share]:
    """The same for each value of `keys_N`, for example for each source."""
    keys, groups = np.asarray(keys_N), np.asarray(groups_N)
    return {
        str(key): share(hits_N[keys == key], groups[keys == key].tolist(), seed=seed)
        for key in np.unique(keys)
    }
