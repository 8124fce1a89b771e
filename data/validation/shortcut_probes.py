"""Measure how much a model could learn without looking at the patient; `data.validation.dataset_report` calls it
for every version.

Two probes, both blind to anatomy in detail: one sees nothing but the borders of an image, one a thumbnail of 16
pixels. A probe that names the label of an unseen patient from the border has found a shortcut: a marker, a frame,
a machine. A probe that names the source says that the sources can be told apart, which matters as soon as classes
come from different sources; the table of classes by sources says whether they do. Knows no store and no model.
"""

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

View = Literal["borders", "thumbnail"]
Target = Literal["source", "label"]

PROBED_IMAGES = 2400
"""At most: with more the figures change by less than their error, and the time does not stay below 10 s."""
FOLDS = 3
THUMBNAIL_SIDE = 16
BORDER_SIDE, BORDER_WIDTH = 32, 2
"""The borders are what lies within 2 of 32 pixels of an edge: 6 % of the side."""
STEPS = 60
"""Of the solver: a probe need not converge to show what can be seen."""
PENALTY = 0.01
"""Inverse strength `C`; strong, since there are hundreds of features for hundreds of images a class."""
VIEWS: tuple[View, ...] = ("borders", "thumbnail")


@dataclass(frozen=True, kw_only=True)
class Probe:
    """What a linear classifier predicts from one view, on patients that it has not seen."""

    view: View
    target: Target
    accuracy: float
    chance: float
    """Accuracy of always naming the most frequent one."""
    images: int
    classes: int

    @property
    def above_chance(self) -> float:
        """0: no better than always naming the most frequent one; 1: always right."""
        return max(0.0, (self.accuracy - self.chance) / (1 - self.chance))


@dataclass(frozen=True, kw_only=True)
class Shortcuts:
    probes: tuple[Probe, ...]
    not_evaluable: dict[str, str]
    """Target → why no probe could be made for it."""
    class_by_source: dict[str, dict[str, int]]
    """Label → source → number of images, all of them."""


def features(pixels_HW: np.ndarray) -> dict[View, np.ndarray]:
    """Return what each probe sees of one image.

    Args:
        pixels_HW: uint8, the canonical pixels.
    Returns:
        uint8: 240 points of the borders, 256 of the thumbnail.
    """
    image = Image.fromarray(pixels_HW)
    small_HW, thumb_HW = (
        np.asarray(image.resize((side, side), Image.Resampling.BOX)) for side in (BORDER_SIDE, THUMBNAIL_SIDE)
    )
    edge_HW = np.ones(small_HW.shape, bool)
    edge_HW[BORDER_WIDTH:-BORDER_WIDTH, BORDER_WIDTH:-BORDER_WIDTH] = False
    return {"borders": small_HW[edge_HW], "thumbnail": thumb_HW.ravel()}


def shortcuts(
    seen: Sequence[dict[View, np.ndarray]],
    labels: Sequence[str],
    sources: Sequence[str],
    groups: Sequence[str],
    class_by_source: dict[str, dict[str, int]],
) -> Shortcuts:
    """Probe a sample of a version.

    Args:
        seen: `features` of each image of the sample, a few thousand at most.
        groups: no group is in the training and the test part of one fold.
    """
    probes: list[Probe] = []
    not_evaluable: dict[str, str] = {}
    named: tuple[tuple[Target, Sequence[str]], ...] = (("source", sources), ("label", labels))
    for target, names in named:
        why = _why_not(names, groups)
        if why is not None:
            not_evaluable[target] = why
            continue
        for view in VIEWS:
            x_ND = np.stack([views[view] for views in seen]).astype(np.float32)
            probes.append(_probe(view, target, x_ND, np.asarray(names), np.asarray(groups)))
    return Shortcuts(probes=tuple(probes), not_evaluable=not_evaluable, class_by_source=class_by_source)


def _why_not(names: Sequence[str], groups: Sequence[str]) -> str | None:
    """Return why no probe can be made for a target, None when one can."""
    if len(set(names)) < 2:
        return f"all images have the same one ({names[0]})" if names else "there are no images"
    if len(set(groups)) < 2 * FOLDS:
        return f"only {len(set(groups))} groups; {2 * FOLDS} are needed"
    return None


def _probe(view: View, target: Target, x_ND: np.ndarray, y_N: np.ndarray, group_N: np.ndarray) -> Probe:
    """Cross-validate a linear classifier by group; every image is predicted once."""
    model = make_pipeline(StandardScaler(), LogisticRegression(C=PENALTY, max_iter=STEPS))
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0)
    right = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        for train, test in folds.split(x_ND, y_N, group_N):
            if len(set(y_N[train])) < 2:  # then naming that one is all there is to learn
                right += int((y_N[test] == y_N[train][0]).sum())
                continue
            right += int((model.fit(x_ND[train], y_N[train]).predict(x_ND[test]) == y_N[test]).sum())
    return Probe(
        view=view,
        target=target,
        accuracy=right / len(y_N),
        chance=max(Counter(y_N.tolist()).values()) / len(y_N),
        images=len(y_N),
        classes=len(set(y_N.tolist())),
    )
