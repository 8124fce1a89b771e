import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.routing import Routes, Target, assign, point


def routes(canary_weight: float) -> Routes:
    return Routes(
        model="xray-vit",
        targets=(
            Target(version="1", weight=1 - canary_weight, role="champion", bundle_key="bundles/a"),
            Target(version="2", weight=canary_weight, role="canary", bundle_key="bundles/b"),
        ),
    )


def test_the_share_of_keys_is_the_weight() -> None:
    got = sum(assign(routes(0.1), f"patient-{n}").version == "2" for n in range(20_000))
    assert abs(got / 20_000 - 0.1) < 4 * (0.1 * 0.9 / 20_000) ** 0.5


@given(st.text(), st.floats(0, 0.5), st.floats(0, 0.5))
def test_raising_a_weight_only_moves_keys_to_the_canary(key: str, low: float, more: float) -> None:
    if assign(routes(low), key).version == "2":
        assert assign(routes(min(1.0, low + more)), key).version == "2"


@given(st.text())
def test_a_point_lies_in_the_unit_interval_and_is_always_the_same(key: str) -> None:
    assert 0 <= point(key, "m") < 1
    assert point(key, "m") == point(key, "m")


def test_no_weight_means_no_key() -> None:
    assert all(assign(routes(0.0), str(n)).version == "1" for n in range(1000))


def test_weights_that_do_not_sum_to_one_are_refused() -> None:
    with pytest.raises(ValueError, match="sum to"):
        Routes(model="m", targets=(Target(version="1", weight=0.5, role="champion", bundle_key="bundles/a"),))


def test_two_champions_are_refused() -> None:
    one = Target(version="1", weight=0.5, role="champion", bundle_key="bundles/a")
    two = Target(version="2", weight=0.5, role="champion", bundle_key="bundles/b")
    with pytest.raises(ValueError, match="exactly one champion"):
        Routes(model="m", targets=(one, two))
