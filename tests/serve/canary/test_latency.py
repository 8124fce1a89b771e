"""Latency by blocks, and quantiles from a histogram."""

import numpy as np
import pytest

from serve.canary.latency import LatencyBlocks, LatencyHistogram


def test_a_block_gives_one_difference_however_many_requests_it_had() -> None:
    blocks = LatencyBlocks()
    number_N = np.array([0, 0, 0, 0, 1, 1, 3])
    canary_N = np.array([True, True, False, False, False, False, True])
    slow_N = np.array([True, True, True, False, True, True, False])
    assert blocks.add(number_N, canary_N, slow_N).tolist() == [0.5]  # block 1 had no canary, block 3 is open
    assert blocks.add(np.array([3]), np.array([False]), np.array([True])).tolist() == []
    assert blocks.close().tolist() == [-1.0]
    assert blocks.close().tolist() == []


def test_blocks_cut_anywhere_are_the_same_blocks() -> None:
    rng = np.random.default_rng(0)
    number_N = np.sort(rng.integers(0, 30, 400))
    canary_N, slow_N = rng.random(400) < 0.2, rng.random(400) < 0.1
    whole, cut, found = LatencyBlocks(), LatencyBlocks(), []
    for part in np.array_split(np.arange(400), 37):
        found += cut.add(number_N[part], canary_N[part], slow_N[part]).tolist()
    assert whole.add(number_N, canary_N, slow_N).tolist() == found
    assert whole.as_dict() == cut.as_dict() == LatencyBlocks.from_dict(whole.as_dict()).as_dict()


def test_quantiles_are_within_a_tenth() -> None:
    latencies = LatencyHistogram()
    values = np.random.default_rng(0).lognormal(5, 1, 5000)
    latencies.add(np.append(values, np.nan))
    assert latencies.total == 5000
    for q in (0.5, 0.95, 0.99):
        assert latencies.quantile(q) == pytest.approx(np.quantile(values, q), rel=0.1)
    assert LatencyHistogram().quantile(0.5) is None
