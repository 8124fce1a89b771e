"""Inputs that must be refused before they reach a model: inverted, lateral, blank, a photograph.

Each is offered as a caller would send it, to the checks that serving runs before its model:
`data.imaging.preprocess` and `data.imaging.quality` in a child process. Knows no model.
"""

import io
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

from data.imaging.preprocess import encode_png
from train.metrics.bootstrap import share
from train.metrics.gate_inputs import Behaviour

Refuses = Callable[[bytes, str | None], bool]
"""A file and the caller's view → True if it is refused."""

FILMS = 60
"""Largest number of chest films of the test split that are inverted, and that are called lateral."""
BLANKS, PHOTOGRAPHS = 40, 40
SIDE = 256
LATERAL = "LATERAL"


def refusals(refuses: Refuses, films: Sequence[np.ndarray], groups: Sequence[str]) -> list[Behaviour]:
    """Measure the share of each kind that is refused.

    Args:
        films: displayed chest films of the test split, uint8, at their own size.
        groups: their patients.
    """
    return [
        _of_films("inverted", lambda film_HW: refuses(encode_png(255 - film_HW), None), films, groups),
        _of_films("lateral", lambda film_HW: refuses(encode_png(film_HW), LATERAL), films, groups),
        _of("blank", [refuses(blob, None) for blob in blanks()]),
        _of("photograph", [refuses(blob, None) for blob in photographs()]),
    ]


def blanks() -> list[bytes]:
    """Generate even areas of any grey, with the noise of a detector without a patient."""
    rng = np.random.default_rng(0)
    levels = np.linspace(2, 253, BLANKS)
    return [
        encode_png(np.clip(rng.normal(level, 0.8, (SIDE, SIDE)).round(), 0, 255).astype(np.uint8))
        for level in levels
    ]


def photographs() -> list[bytes]:
    """Generate colour photographs as a telephone sends them: parts of scikit-learn's two, as JPEG."""
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(image) for image in load_sample_images().images]
    blobs = []
    for nth in range(PHOTOGRAPHS):
        picture = pictures[nth % len(pictures)]
        left, top = int(rng.integers(picture.width - SIDE)), int(rng.integers(picture.height - SIDE))
        file = io.BytesIO()
        picture.crop((left, top, left + SIDE, top + SIDE)).save(file, "JPEG", quality=90)
        blobs.append(file.getvalue())
    return blobs


def _of_films(
    name: str, refused: Callable[[np.ndarray], bool], films: Sequence[np.ndarray], groups: Sequence[str]
) -> Behaviour:
    if not films:
        why = "no original of a chest film of the test split can be read"
        return Behaviour(name=name, estimate=None, why_not=why, family="refusal")
    return _of(name, [refused(film_HW) for film_HW in films], groups)


def _of(name: str, refused: list[bool], groups: Sequence[str] | None = None) -> Behaviour:
    of_whom = groups or [str(nth) for nth in range(len(refused))]
    return Behaviour(name=name, estimate=share(np.array(refused), of_whom), family="refusal")
