"""Measure how much of a picture is in colour; called by `data.imaging.preprocess` and `data.imaging.dicom` before
they make it grey.

A grey picture that is stored as RGB has none. Knows no file type.
"""

from collections.abc import Collection

import numpy as np
from PIL import Image

from data.imaging.errors import BadImageError

SIDE = 64
"""Rows and columns that are looked at, evenly spread: 4,096 pixels say it as well as all do."""
CHROMA = 24
"""Levels (of 256) between a pixel's largest and smallest channel from which a person sees a colour. The chroma
noise of a grey picture as JPEG of quality 20 stays below 12."""
COLOURED_SHARE = 0.1
"""Of the pixels, from which a picture is a colour photograph: a coloured side marker or arrow takes less, the
photographs measured take 0.42 and more (docs/experiments.md)."""
GREY_MODES = ("L", "LA", "1", "I", "I;16", "I;16B", "F")


def coloured_share(image: Image.Image) -> float:
    """Return the share of the pixels that have a colour, 0..1.

    Args:
        image: of any mode of Pillow, loaded.
    """
    if image.mode in GREY_MODES:
        return 0.0
    few = image.resize((SIDE, SIDE), Image.Resampling.NEAREST)
    if few.mode == "P" and "transparency" in few.info:
        few = few.convert("RGBA")
    channels_HWC = np.asarray(few.convert("RGB")).astype(np.int16)
    chroma_HW = channels_HWC.max(axis=2) - channels_HWC.min(axis=2)
    return float((chroma_HW >= CHROMA).mean())


def refuse_colour(image: Image.Image, waived: Collection[str] = ()) -> None:
    """Refuse an image whose share of coloured pixels is that of a photograph.

    Raises:
        BadImageError: `colour`, unless `waived` names it.
    """
    if "colour" not in waived and coloured_share(image) >= COLOURED_SHARE:
        raise BadImageError("colour", "the image is in colour: a photograph or a drawing, not an X-ray")
