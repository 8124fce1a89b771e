"""Strokes as high as letters, at several scales."""

import cv2
import numpy as np
import pytest

from data.imaging.strokes import levels, strokes_of


@pytest.mark.parametrize(
    ("side", "expected"),
    [
        (300, {0: 300}),
        (600, {0: 600, 1: 300}),
        (2000, {0: 2000, 1: 1000, 2: 500}),
        (3000, {1: 1500, 2: 750, 3: 375}),
    ],
)
def test_an_image_is_looked_at_in_up_to_three_sizes(side: int, expected: dict[int, int]) -> None:
    assert {
        level: image_HW.shape[0] for level, image_HW in levels(np.zeros((side, side), np.uint8))
    } == expected


def test_a_bright_bar_is_one_stroke_with_its_place_and_area() -> None:
    small_HW = np.full((60, 60), 50, np.uint8)
    small_HW[20:32, 10:14] = 200
    strokes = strokes_of(small_HW, cv2.MORPH_TOPHAT)
    assert strokes is not None
    assert [part.tolist() for part in (strokes.left, strokes.top, strokes.width, strokes.height)] == [
        [10],
        [20],
        [4],
        [12],
    ]
    assert strokes.area.tolist() == [48]
    assert strokes.sums[0, 0] == 48 * 150
    assert strokes_of(small_HW, cv2.MORPH_BLACKHAT) is None


def test_what_is_thick_or_faint_is_no_stroke() -> None:
    small_HW = np.full((60, 60), 50, np.uint8)
    small_HW[10:40, 10:40] = 200
    small_HW[50:58, 50:53] = 70
    assert strokes_of(small_HW, cv2.MORPH_TOPHAT) is None
