"""Text is masked in the stored values of a DICOM file."""

import cv2
import numpy as np
import pytest

from data.imaging.errors import BadImageError
from data.imaging.masked_dicom import masked_stored
from tests.data.imaging.dicom_files import dicom


def test_a_picture_without_text_keeps_its_values_and_depth() -> None:
    rows, columns = np.mgrid[0:200, 0:200]
    stored_HW = (1000 + 8 * rows + 4 * columns).astype(np.uint16)
    masked_HW = masked_stored(dicom(stored_HW))
    assert masked_HW.dtype.str == "<u2"
    assert np.array_equal(masked_HW, stored_HW)


def test_written_text_is_gone_and_the_rest_stays() -> None:
    stored_HW = np.full((300, 300), 800, np.uint16) + np.arange(300, dtype=np.uint16)
    written_HW = stored_HW.copy()
    cv2.putText(written_HW, "DOE JANE 4711", (20, 40), cv2.FONT_HERSHEY_SIMPLEX, 0.8, 4095, 2)
    masked_HW = masked_stored(dicom(written_HW))
    assert (written_HW == 4095).sum() > 500
    assert (masked_HW == 4095).sum() == 0
    assert np.array_equal(masked_HW[100:], stored_HW[100:])


def test_what_is_no_picture_is_refused() -> None:
    with pytest.raises(BadImageError):
        masked_stored(bytes(128) + b"DICM")
