"""Grey values of any depth become the 256 that are shown."""

import numpy as np
import pytest

from data.imaging.errors import BadImageError
from data.imaging.windowing import percentiles, ramp_limits, ramp_of, stretch


def test_a_ramp_holds_every_value_between_the_lowest_and_the_highest() -> None:
    index_HW, ramp = ramp_of(np.array([[-2, 3], [0, -2]], np.int16))
    assert ramp.tolist() == [-2, -1, 0, 1, 2, 3]
    assert index_HW.tolist() == [[0, 5], [2, 0]]


def test_more_than_16_bits_apart_and_colour_are_refused() -> None:
    with pytest.raises(BadImageError, match="deeper than 16 bits"):
        ramp_of(np.array([[0, 1 << 16]]))
    with pytest.raises(BadImageError, match="no plane"):
        ramp_of(np.zeros((2, 2, 3), np.uint8))


def test_hot_and_dead_pixels_lie_outside_of_the_limits() -> None:
    stored_HW = np.full((100, 100), 500)
    stored_HW[0, :2], stored_HW[50] = (0, 4000), 700
    assert ramp_limits(*ramp_of(stored_HW)) == (500.0, 700.0)


def test_padding_does_not_count() -> None:
    stored_HW = np.full((100, 100), 500)
    stored_HW[:50], stored_HW[50] = 4000, 700
    index_HW, ramp = ramp_of(stored_HW)
    assert ramp_limits(index_HW, ramp, ramp == 4000) == (500.0, 700.0)


def test_the_limits_become_0_and_255_and_no_range_becomes_0() -> None:
    assert stretch(np.array([9, 10, 15, 20, 21]), 10, 20).tolist() == [0, 0, 128, 255, 255]
    assert stretch(np.array([10, 10]), 10, 10).tolist() == [0, 0]


def test_percentiles_are_bins() -> None:
    assert percentiles(np.array([1, 98, 1]), 1, 99) == (0, 1)
    assert percentiles(np.array([0, 5, 0]), 0.1, 99.9) == (1, 1)
