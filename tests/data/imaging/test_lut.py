"""The quick ways to look up and count give what numpy gives."""

import numpy as np
import pytest

from data.imaging.lut import CACHED_PIXELS, count, look_up, offsets

DTYPES = ("<u2", ">u2", "<i2", ">i2", "u1", "i1", "<i4", ">i4")


@pytest.mark.parametrize("dtype", DTYPES)
def test_offsets_from_the_lowest_are_exact_in_every_dtype(dtype: str) -> None:
    limits = np.iinfo(np.dtype(dtype))
    low, high = max(int(limits.min), -20_000), min(int(limits.max), 45_000)
    stored_HW = np.random.default_rng(0).integers(low, high, (37, 53), endpoint=True).astype(dtype)
    stored_HW[0, :2] = low, high
    index_HW = offsets(stored_HW, low)
    assert index_HW.dtype == np.uint16
    assert np.array_equal(index_HW, stored_HW.astype(np.int64) - low)


@pytest.mark.parametrize("shape", [(1, 1), (700, 300), (3, CACHED_PIXELS + 5)])
def test_looking_up_and_counting_equal_numpy_s_own(shape: tuple[int, int]) -> None:
    random = np.random.default_rng(1)
    index_HW = random.integers(0, 5000, shape).astype(np.uint16)
    table = random.integers(0, 256, 5000).astype(np.uint8)
    assert np.array_equal(look_up(table, index_HW), table[index_HW])
    assert np.array_equal(count(index_HW, 5000), np.bincount(index_HW.ravel(), minlength=5000))


def test_the_rows_of_a_slice_are_looked_up_too() -> None:
    index_HW = np.arange(200, dtype=np.uint16).reshape(10, 20)[::2, ::3]
    table = np.arange(200, dtype=np.uint8)
    assert np.array_equal(look_up(table, index_HW), index_HW)
