"""Originals of test images, for evaluation: films at their own size, or pixels of other settings.

The pixels stay in this process. A missing original, such as an erased patient's, is no error: the result says which
were available.
"""

from collections.abc import Callable, Sequence

import numpy as np

from cluster.settings import Settings
from data.catalog.originals import Originals
from data.imaging.errors import BadImageError
from data.imaging.preprocess import PixelConfig, scale
from data.sandbox.decoder import Decoder

WAIVED = ("blank", "colour", "too_small", "lateral", "not_an_xray", "inverted")
"""Checks that are skipped: these images are in the dataset already, perhaps because a reviewer accepted them."""


def films(settings: Settings, decoder: Decoder, sha256s: Sequence[str]) -> list[np.ndarray | None]:
    """Decode each original for display, None if it is not available.

    Raises:
        SecretError: no key, or an original was changed. ObjectStoreError: the store does not answer.
    """
    originals = Originals.of(settings)
    return [_film(originals, decoder, sha256) for sha256 in sha256s]


def pixels(
    settings: Settings, decoder: Decoder, sha256s: Sequence[str], config: PixelConfig
) -> tuple[np.ndarray, np.ndarray]:
    """Make canonical pixels with other settings than the dataset's.

    Returns:
        pixels_MHW of the available originals, and available_N, bool.
    Raises: see `films`.
    """
    originals = Originals.of(settings)
    made: list[np.ndarray] = []
    had = []
    for sha256 in sha256s:
        film_HW = _film(originals, decoder, sha256)
        had.append(film_HW is not None)
        if film_HW is not None:
            made.append(scale(film_HW, config))
    pixels_MHW = np.stack(made) if made else np.zeros((0, config.side, config.side), np.uint8)
    return pixels_MHW, np.array(had, bool)


def refuser(decoder: Decoder) -> Callable[[bytes, str | None], bool]:
    """Return a function that tells whether serving would refuse a file before its model sees it."""

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
