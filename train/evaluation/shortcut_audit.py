"""Shortcut audit: the accuracy that remains on chest films without the lungs, and on their borders only.

Remaining accuracy comes from elsewhere: markers, frames, machines, the shape of a body.
`train.evaluation.lung_mask` says where the lungs are. `data.validation.shortcut_probes` measures beside it what
the images alone give away.
"""

from collections import Counter
from collections.abc import Callable

import numpy as np

from data.taxonomy import taxonomy
from data.validation import shortcut_probes
from data.validation.shortcut_probes import Shortcuts
from train.evaluation.behavioural_tests import Ask, Predictions
from train.evaluation.lung_mask import chest_box, inner_box
from train.metrics.bootstrap import Resampling, ratio
from train.metrics.gate_inputs import Remaining

IMAGES = 600
"""Largest number of chest films that are asked again."""
CLASS_IMAGES = 10
"""A class with fewer films is left out: its recall would rest on one or two."""
LEAST_LEARNED = 0.1
"""A model whose balanced accuracy is less than this above chance has learned too little to be audited."""

Mask = Callable[[int], np.ndarray]
MASKS: dict[str, Mask] = {"lungs_masked": chest_box, "borders_only": inner_box}
"""Side → the mask of what is painted over."""


def audit(ask: Ask, predictions: Predictions) -> list[Remaining]:
    """Measure one result a mask."""
    limb_K = np.array([taxonomy()[name].region == "limb" for name in predictions.names])
    counts = Counter(predictions.labels_N.tolist())
    large_K = np.array([counts[k] >= CLASS_IMAGES for k in range(len(predictions.names))])
    audited_N = (~limb_K & large_K)[predictions.labels_N]
    classes = int((~limb_K & large_K).sum())
    if classes < 2:
        why = f"fewer than two chest classes have {CLASS_IMAGES} test images"
        return [Remaining(name=name, images=int(audited_N.sum()), why_not=why) for name in MASKS]
    some = predictions.some(audited_N, IMAGES)
    return [_remaining(name, mask, ask, some) for name, mask in MASKS.items()]


def painted(pixels_NHW: np.ndarray, inside_HW: np.ndarray) -> np.ndarray:
    """Fill the place where `inside_HW` is true with the mean grey of the rest of each image."""
    result = pixels_NHW.copy()
    for image_HW in result:
        image_HW[inside_HW] = round(float(image_HW[~inside_HW].mean()))
    return result


def probes(predictions: Predictions, sources: list[str]) -> Shortcuts:
    """Probe what borders and thumbnails of the test images reveal of label and source, without any model."""
    chosen = np.random.default_rng(0).permutation(len(sources))[: shortcut_probes.PROBED_IMAGES]
    labels = [predictions.names[k] for k in predictions.labels_N]
    return shortcut_probes.shortcuts(
        [shortcut_probes.features(predictions.pixels_NHW[nth]) for nth in chosen],
        labels=[labels[nth] for nth in chosen],
        sources=[sources[nth] for nth in chosen],
        groups=[predictions.groups[nth] for nth in chosen],
        class_by_source={},
    )


def _remaining(name: str, mask: Mask, ask: Ask, some: Predictions) -> Remaining:
    answers_N = some.probabilities_NK.argmax(axis=1)
    masked_N = ask(painted(some.pixels_NHW, mask(some.pixels_NHW.shape[1]))).argmax(axis=1)
    classes = np.unique(some.labels_N)
    chance = 1 / len(classes)
    of_NK = some.labels_N[:, None] == classes
    columns = np.column_stack(
        [of_NK, of_NK & (answers_N == some.labels_N)[:, None], of_NK & (masked_N == some.labels_N)[:, None]]
    )
    full, without = (values[0] for values in _balanced(columns.sum(axis=0)[None], len(classes)))
    if full - chance < LEAST_LEARNED:
        return Remaining(
            name=name,
            images=len(answers_N),
            full=float(full),
            masked=float(without),
            chance=chance,
            why_not=f"the model is right in {full:.2f} of these films where chance is {chance:.2f}",
        )
    resampling = Resampling(some.groups)
    full_R, without_R = _balanced(resampling.sums(columns), len(classes))
    return Remaining(
        name=name,
        images=len(answers_N),
        full=float(full),
        masked=float(without),
        chance=chance,
        left=resampling.estimate(
            float((without - chance) / (full - chance)), ratio(without_R - chance, full_R - chance)
        ),
    )


def _balanced(counts_RD: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Compute the mean recall over the classes, of the answers to the whole and to the masked films."""
    true_RK = counts_RD[:, :classes]
    whole_RK, masked_RK = counts_RD[:, classes : 2 * classes], counts_RD[:, 2 * classes :]
    return np.nanmean(ratio(whole_RK, true_RK), axis=1), np.nanmean(ratio(masked_RK, true_RK), axis=1)
