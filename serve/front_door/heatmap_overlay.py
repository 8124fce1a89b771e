"""Heat over the X-ray that a classifier looked at, as a PNG of the X-ray's size.

One colour, the stronger the more a place speaks for the class; without heat the X-ray is unchanged. Knows no model.
"""

import io

import numpy as np
from PIL import Image

from data.imaging.preprocess import place

COLOUR = (255, 96, 0)
"""Orange: distinguishable from grey with every kind of colour vision."""
OPACITY = 0.6
"""Opacity at the hottest place; what lies under it stays visible."""


def overlay(shown_HW: np.ndarray, heat_SS: np.ndarray) -> bytes:
    """Lay the heat of the model's square over the shown image.

    Args:
        shown_HW: uint8, the image as it was shown to the caller.
        heat_SS: float32, 0 to 1, over the square that `data.imaging.preprocess.scale` made of it.
    Returns:
        an RGB PNG without metadata, as large as the shown image; the same for the same arguments.
    """
    shown = Image.fromarray(shown_HW)
    top, left, height, width = place(shown_HW.shape, heat_SS.shape[0])
    within_HW = np.clip(heat_SS[top : top + height, left : left + width], 0, 1) * (255 * OPACITY)
    mask = Image.fromarray(np.rint(within_HW).astype(np.uint8)).resize(shown.size, Image.Resampling.BILINEAR)
    file = io.BytesIO()
    warm = Image.new("RGB", shown.size, COLOUR)
    Image.composite(warm, shown.convert("RGB"), mask).save(file, "PNG", compress_level=1)
    return file.getvalue()
