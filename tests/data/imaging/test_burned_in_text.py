"""`data.imaging.burned_in_text`: planted names and dates are masked, anatomy stays, and the same image gives
the same boxes.
"""

import io
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from data.imaging.burned_in_text import Box, fill, find_text, mask_text
from data.synthetic.shapes import cloud

REAL = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "xrays"
STRINGS = ("DOE^JANE", "12.03.1957", "ID: 4471902", "St. Mary Hospital 7/3/22")


def chest(side: int = 512) -> np.ndarray:
    """Soft blobs and ribs: nothing on it has an edge as sharp as a letter's."""
    rows, columns = np.mgrid[0:side, 0:side] / side
    body = 150 * np.exp(-(((columns - 0.5) / 0.42) ** 4) - ((rows - 0.6) / 0.7) ** 4)
    ribs = 25 * np.sin(40 * (rows + 0.6 * (columns - 0.5) ** 2)) * (body > 40)
    grain = 8 * cloud(np.random.default_rng(5), (side, side), side // 4)
    return np.clip(20 + body + ribs + grain, 0, 255).astype(np.uint8)


def written(
    image_HW: np.ndarray, text: str, at: tuple[int, int], size: int, ink: int, box: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The image with text on it, and where its ink is."""
    font = ImageFont.load_default(size)
    ink_mask = Image.new("L", image_HW.shape[::-1])
    ImageDraw.Draw(ink_mask).text(at, text, fill=255, font=font)
    picture = Image.fromarray(image_HW)
    draw = ImageDraw.Draw(picture)
    if box is not None:
        left, top, right, bottom = draw.textbbox(at, text, font=font)
        draw.rectangle((left - 4, top - 4, right + 4, bottom + 4), fill=box)
    draw.text(at, text, fill=ink, font=font)
    return np.asarray(picture), np.asarray(ink_mask) > 127


def covered(boxes: list[Box], where_HW: np.ndarray) -> float:
    mask_HW = np.zeros(where_HW.shape, bool)
    for box in boxes:
        mask_HW[box.top : box.bottom, box.left : box.right] = True
    return float(mask_HW[where_HW].mean())


@pytest.mark.parametrize("text", STRINGS)
@pytest.mark.parametrize("size", [12, 18, 30])
@pytest.mark.parametrize(("ink", "box"), [(255, None), (0, 255), (255, 0)])
@pytest.mark.parametrize("corner", ["top left", "bottom right"])
def test_planted_text_is_masked(text: str, size: int, ink: int, box: int | None, corner: str) -> None:
    wide = int(ImageFont.load_default(size).getlength(text))
    at = (8, 8) if corner == "top left" else (504 - wide, 500 - int(1.3 * size))
    picture_HW, where_HW = written(chest(), text, at, size, ink, box)
    assert covered(find_text(picture_HW), where_HW) >= 0.95


def test_black_text_on_bright_tissue_and_text_turned_by_90_degrees_are_masked() -> None:
    bright_HW, where_HW = written(chest(), "MRN 0815-4711", (150, 300), 20, 0)
    assert covered(find_text(bright_HW), where_HW) >= 0.95
    picture_HW, where_HW = written(chest(), "DOE^JANE 1957", (20, 20), 20, 255)
    assert covered(find_text(np.rot90(picture_HW)), np.rot90(where_HW)) >= 0.95


def test_text_survives_neither_jpeg_nor_a_large_film() -> None:
    picture_HW, where_HW = written(chest(), "DOE^JANE 1957", (20, 20), 22, 255)
    file = io.BytesIO()
    Image.fromarray(picture_HW).save(file, "JPEG", quality=75)
    assert covered(find_text(np.asarray(Image.open(file))), where_HW) >= 0.95
    large_HW, where_HW = written(
        np.kron(chest(), np.ones((6, 6), np.uint8)), "DOE^JANE 1957", (60, 60), 70, 255
    )
    assert large_HW.shape == (3072, 3072)
    assert covered(find_text(large_HW), where_HW) >= 0.95


def test_an_image_without_text_stays_as_it_is() -> None:
    picture_HW = chest()
    assert find_text(picture_HW) == []
    assert mask_text(picture_HW) is picture_HW


def test_outside_of_the_boxes_no_pixel_changes_and_inside_no_ink_is_left() -> None:
    picture_HW, where_HW = written(chest(), "DOE^JANE", (20, 20), 20, 255)
    masked_HW = mask_text(picture_HW)
    inside_HW = np.zeros(picture_HW.shape, bool)
    for box in find_text(picture_HW):
        inside_HW[box.top : box.bottom, box.left : box.right] = True
    assert np.array_equal(masked_HW[~inside_HW], picture_HW[~inside_HW])
    assert masked_HW[where_HW].max() < 100
    assert find_text(masked_HW) == []


def test_the_same_pixels_give_the_same_boxes_whatever_their_layout_in_memory() -> None:
    picture_HW, _ = written(chest(), "DOE^JANE", (20, 20), 20, 255)
    assert find_text(np.asfortranarray(picture_HW)) == find_text(picture_HW) != []


def test_a_box_takes_the_brightness_around_it_channel_by_channel() -> None:
    colour_HWC = np.full((40, 40, 3), (10, 20, 30), np.uint8)
    colour_HWC[10:20, 10:20] = 255
    assert (fill(colour_HWC, [Box(10, 10, 20, 20)]) == (10, 20, 30)).all()
    whole = fill(np.arange(16, dtype=np.uint8).reshape(4, 4), [Box(0, 0, 4, 4)])
    assert len(np.unique(whole)) == 1


@pytest.mark.parametrize("shape", [(32, 32), (32, 900), (1, 1)])
def test_noise_and_tiny_images_are_survived(shape: tuple[int, int]) -> None:
    noise_HW = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    assert mask_text(noise_HW).shape == shape


def test_a_megapixel_takes_less_than_twice_its_eight_milliseconds_of_one_core() -> None:
    picture_HW, _ = written(chest(1024), "DOE^JANE 12.03.1957", (20, 20), 24, 255)
    took_s = []
    for _ in range(10):
        started_s = time.thread_time()
        assert mask_text(picture_HW) is not picture_HW
        took_s.append(time.thread_time() - started_s)
    assert min(took_s) < 2 * 0.008


@pytest.mark.skipif(not REAL.exists(), reason="the real X-rays are not here")
def test_on_real_chests_little_is_masked_and_next_to_nothing_in_the_lungs() -> None:
    paths = sorted((REAL / "images" / "normal").glob("*"))[::30]
    shares, lungs = [], []
    for path in paths:
        with Image.open(path) as image:
            shown_HW = np.asarray(image.convert("L"))
        mask_HW = np.zeros(shown_HW.shape, bool)
        for box in find_text(shown_HW):
            mask_HW[box.top : box.bottom, box.left : box.right] = True
        height, width = shown_HW.shape
        shares.append(mask_HW.mean())
        for start in (0.14, 0.56):
            columns = slice(int(start * width), int((start + 0.3) * width))
            lungs.append(mask_HW[int(0.2 * height) : int(0.75 * height), columns].mean())
    assert len(paths) > 20
    assert np.mean(shares) < 0.01
    assert np.mean(lungs) < 0.001
