"""A benchmark's figure is the ratio of both sides."""

from jobs.bench.figure import Figure


def test_a_ratio_is_ours_over_the_peer_s() -> None:
    assert Figure.of("x", 1.0, 3.0, "peer", "s").ratio == 0.333
