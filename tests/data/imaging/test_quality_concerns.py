"""Doubts about images that are not refused: none about X-rays as they are, one about each way of spoiling them."""

import cv2
import numpy as np
import pytest

from data.imaging.preprocess import decode
from data.imaging.quality import doubted, judged
from data.imaging.quality_concerns import concerns, size_concerns
from data.synthetic.generator import SyntheticConfig, generate


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> list[np.ndarray]:
    """Shown images of every class, of a detector that has wandered as far as the generator can."""
    folder = tmp_path_factory.mktemp("drawn")
    generate(SyntheticConfig(images=40, drift=0.0), folder / "sound")
    generate(SyntheticConfig(images=20, drift=1.0, seed=1), folder / "wandered")
    return [decode(path.read_bytes()).shown_HW for path in sorted(folder.rglob("images/**/*.*"))]


def thumbnail(shown_HW: np.ndarray) -> np.ndarray:
    return cv2.resize(shown_HW, (128, 128), interpolation=cv2.INTER_AREA)


def test_x_rays_as_they_are_give_no_concern(drawn: list[np.ndarray]) -> None:
    assert len(drawn) == 60
    assert {concerns(thumbnail(one)) for one in drawn} == {()}


SPOILED = {
    "underexposed": lambda shown_HW: shown_HW // 4,
    "overexposed": lambda shown_HW: np.clip(shown_HW.astype(int) * 4, 0, 255).astype(np.uint8),
    "low_contrast": lambda shown_HW: (shown_HW // 5 + 100).astype(np.uint8),
    "blurred": lambda shown_HW: cv2.GaussianBlur(shown_HW, (0, 0), 0.03 * min(shown_HW.shape)),
}


@pytest.mark.parametrize("concern", SPOILED)
def test_each_way_of_spoiling_an_image_is_told(concern: str, drawn: list[np.ndarray]) -> None:
    found = [concern in concerns(thumbnail(SPOILED[concern](one))) for one in drawn]
    assert np.mean(found) > 0.9


def test_an_image_that_is_mostly_made_up_when_enlarged_is_small() -> None:
    assert size_concerns(200, 111, 224) == ("small",)
    assert size_concerns(200, 112, 224) == ()


def test_a_spoiled_image_is_decoded_and_not_refused(drawn: list[np.ndarray]) -> None:
    blurred_HW = SPOILED["blurred"](drawn[0])
    ok, blob = cv2.imencode(".png", blurred_HW)
    assert ok
    found = judged(blob.tobytes(), decode)
    assert found.concerns == ()  # ETL does not ask
    assert doubted(found).concerns == ("blurred",)
