"""One transform: what ETL writes and what serving classifies are the same pixels, bit by bit."""

import hashlib
import io
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

from data.catalog.originals import Originals
from data.dataset.staging import _convert
from data.imaging.errors import BadImageError
from data.imaging.preprocess import PREPROCESS_VERSION, PixelConfig, scale, to_pixels
from data.sandbox.decoder import process_decoder
from tests.planted import plant

REAL = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "xrays"
CONFIG = PixelConfig(side=224)
JUDGED = ("not_an_xray", "inverted")
"""What `data.imaging.quality` may say of a file that decodes."""


class Shelf:
    """Where ETL finds an original."""

    def __init__(self, blob: bytes) -> None:
        self.blob = blob

    def get(self, key: str) -> bytes:
        assert key == "the key"
        return self.blob

    def put(self, bucket: str, sha256: str, blob: bytes) -> str:
        """A refused one goes to the quarantine."""
        return "the key"


def etl_side(blob: bytes) -> bytes | str:
    """Pixels, or the reason why there are none."""
    sha256 = hashlib.sha256(blob).hexdigest()
    row = {
        "source": "s",
        "sha256": sha256,
        "label": "normal",
        "view": None,
        "raw_key": "the key",
        "waived": [],
    }
    outcome = _convert(row, cast(Originals, Shelf(blob)), CONFIG)
    return cast(bytes, outcome.get("pixels")) or str(outcome["reason"])


def serve_side(blob: bytes) -> bytes | str:
    """What the desk does: the child's decoder, then `scale` with the served version's settings."""
    try:
        return scale(process_decoder().decode(blob).shown_HW, CONFIG).tobytes()
    except BadImageError as error:
        return error.reason


def generated() -> dict[str, bytes]:
    """A DICOM, a PNG and a JPEG, each with text burned in."""
    planted = plant(5)
    file = io.BytesIO()
    Image.open(io.BytesIO(planted.png)).convert("L").save(file, "JPEG", quality=90)
    return {"dicom": planted.dicom, "png": planted.png, "jpeg": file.getvalue()}


def real() -> list[Any]:
    if not REAL.exists():
        return [pytest.param(None, marks=pytest.mark.skip(reason="the real X-rays are not here"))]
    bad = ("dx_no_pixel_data", "der_truncated")
    paths = [path for path in sorted((REAL / "dicom").glob("*.dcm")) if path.stem not in bad]
    for folder in sorted((REAL / "images").iterdir()):
        for suffix in ("*.png", "*.jp*g"):
            paths += sorted(folder.glob(suffix))[:2]
    return [pytest.param(path, id=path.name) for path in paths]


@pytest.mark.parametrize("kind", ["dicom", "png", "jpeg"])
def test_etl_and_serving_see_the_same_pixels_of_a_generated_file(kind: str) -> None:
    blob = generated()[kind]
    assert etl_side(blob) == serve_side(blob) == to_pixels(blob, CONFIG).tobytes()


@pytest.mark.parametrize("path", real())
def test_etl_and_serving_see_the_same_pixels_of_a_real_file(path: Path) -> None:
    blob = path.read_bytes()
    seen = etl_side(blob)
    assert seen == serve_side(blob)
    assert seen == to_pixels(blob, CONFIG).tobytes() or seen in JUDGED


def test_an_image_without_text_keeps_the_pixels_of_the_plain_decoder() -> None:
    """What the transform did before it masked: PNG and JPEG straight from Pillow."""
    rows, columns = np.mgrid[0:200, 0:300]
    soft_HW = (120 + 60 * np.sin(rows / 40) + 50 * np.cos(columns / 50)).astype(np.uint8)
    for kind in ("PNG", "JPEG"):
        file = io.BytesIO()
        Image.fromarray(soft_HW).save(file, kind)
        plain_HW = np.asarray(Image.open(file).convert("L"))
        assert np.array_equal(to_pixels(file.getvalue(), CONFIG), scale(plain_HW, CONFIG))


def test_other_pixels_have_another_version() -> None:
    assert PREPROCESS_VERSION == "3"
