"""Mask burned-in text in the stored pixels of a DICOM file, for the copies of `data.privacy.export`.

`data.sandbox.child` calls it, as files are untrusted. Knows nothing of headers that may leave.
"""

from collections.abc import Collection

import numpy as np

from data.imaging.burned_in_text import fill, find_text
from data.imaging.dicom import DICOM_ERRORS, explain, open_dicom, show_stored, stored_pixels
from data.imaging.errors import BadImageError

KINDS = ("|u1", "|i1", "<u2", "<i2")
"""Types of the pixels, as numpy writes them."""


def masked_stored(blob: bytes, waived: Collection[str] = ()) -> np.ndarray:
    """Decode one DICOM file as far as its look-up tables, and mask text where a person would see it.

    Args:
        waived: see `preprocess.decode`.
    Returns:
        stored_HW: of one of `KINDS`. Grey keeps depth and sign; colour is the 8-bit grey of `preprocess.decode`.
    Raises:
        BadImageError: it holds no picture that we can decode, or stored values of more than 16 bits.
    """
    try:
        header = open_dicom(blob)
        stored = stored_pixels(header, waived)
        shown_HW = show_stored(stored, header, waived)
    except BadImageError:
        raise
    except DICOM_ERRORS as error:
        raise explain(error, len(blob)) from error
    stored_HW = shown_HW if stored.ndim == 3 else stored
    kind = KINDS[2 * (stored_HW.dtype.itemsize > 1) + (stored_HW.dtype.kind == "i")]
    if stored_HW.dtype.itemsize > 2 and not _fit(stored_HW, kind):
        raise BadImageError("unsupported", "the image is deeper than 16 bits")
    return np.ascontiguousarray(fill(stored_HW, find_text(shown_HW)).astype(kind))


def _fit(stored_HW: np.ndarray, kind: str) -> bool:
    ends = np.iinfo(kind)
    return bool(ends.min <= stored_HW.min() and stored_HW.max() <= ends.max)
