"""Originals of test images, for what a dataset version does not hold: films at their own size, or other pixels.

Evaluation alone asks; what it reads stays in this process. An original that is gone, as a forgotten patient's is, is
no error here: who asks is told which could be had.
"""

from collections.abc import Callable, Sequence

import numpy as np

from cluster.settings import Settings
from data.bad_image import BadImageError
from data.originals import Originals
from data.preprocess import PixelConfig, scale
from data.sandbox import Decoder

WAIVED = ("blank", "colour", "too_small", "lateral", "not_an_xray", "inverted")
"""Reasons of checks: these images are in the dataset already, perhaps because a reviewer let them in."""


def films(settings: Settings, decoder: Decoder, sha256s: Sequence[str]) -> list[np.ndarray | None]:
    """Each original as a person would be shown it, None where it cannot be had.

    Raises:
        SecretError: no key, or an original was changed. ObjectStoreError: the store does not answer.
    """
    originals = Originals.of(settings)
    return [_film(originals, decoder, one) for one in sha256s]


def pixels(
    settings: Settings, decoder: Decoder, sha256s: Sequence[str], config: PixelConfig
) -> tuple[np.ndarray, np.ndarray]:
    """Canonical pixels of other settings than the dataset's.

    Returns:
        pixels_MHW of those that could be had, and had_N, bool, which those are.
    Raises: see `films`.
    """
    originals = Originals.of(settings)
    made: list[np.ndarray] = []
    had = []
    for one in sha256s:
        film_HW = _film(originals, decoder, one)
        had.append(film_HW is not None)
        if film_HW is not None:
            made.append(scale(film_HW, config))
    pixels_MHW = np.stack(made) if made else np.zeros((0, config.side, config.side), np.uint8)
    return pixels_MHW, np.array(had, bool)


def refuser(decoder: Decoder) -> Callable[[bytes, str | None], bool]:
    """Whether serving would refuse a file before its model sees it."""

    def refuses(blob: bytes, view: str | None) -> bool:
        try:
            decoder.decode(blob, view=view)
        except BadImageError:
            return True
        return False

    return refuses


def _film(originals: Originals, decoder: Decoder, sha256: str) -> np.ndarray | None:
    try:
        blob = originals.get(originals.key_of(sha256))
        return decoder.decode(blob, waived=WAIVED).shown_HW
    except (FileNotFoundError, BadImageError):
        return None
