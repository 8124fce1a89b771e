import json
from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.routing import routes as routing
from serve.routing.routes import POINTS, Routes, RoutingError, Target, assign, mirrors, point, set_weights

BARE = Routes(
    model="xray-vit",
    salt="7",
    targets=(
        Target(version="1", role="champion", bundle_key="bundles/a"),
        Target(version="2", role="canary", bundle_key="bundles/b"),
        Target(version="3", role="canary", bundle_key="bundles/c"),
    ),
)
KEYS = [f"patient-{n}" for n in range(400)]
SHARES = st.floats(0, 0.5)


def versions(routes: Routes) -> dict[str, str]:
    return {key: assign(routes, key).version for key in KEYS}


def test_the_share_of_keys_is_the_weight_down_to_a_thousandth() -> None:
    routes = set_weights(BARE, {"2": 0.1, "3": 0.001})
    got = [assign(routes, f"patient-{n}").version for n in range(100_000)]
    for version, share in {"1": 0.899, "2": 0.1, "3": 0.001}.items():
        spread = (share * (1 - share) / len(got)) ** 0.5
        assert abs(got.count(version) / len(got) - share) < 4 * spread
    assert routes.weights == {"1": 0.899, "2": 0.1, "3": 0.001}


@given(st.lists(st.tuples(st.sampled_from("23"), SHARES), max_size=12))
def test_a_change_of_one_weight_moves_keys_only_between_that_version_and_the_champion(
    changes: list[tuple[str, float]],
) -> None:
    routes = BARE
    for version, share in changes:
        before, routes = routes, set_weights(routes, {version: share})
        grew = routes.target(version).points >= before.target(version).points
        was, now = versions(before), versions(routes)
        moved = {(was[key], now[key]) for key in KEYS if was[key] != now[key]}
        assert moved <= ({("1", version)} if grew else {(version, "1")})
        assert routes.target(version).points == round(share * POINTS)


@given(SHARES, SHARES)
def test_ramping_down_and_up_again_gives_the_same_keys(low: float, high: float) -> None:
    routes = set_weights(BARE, {"2": max(low, high)})
    again = set_weights(set_weights(routes, {"2": min(low, high)}), {"2": max(low, high)})
    assert versions(again) == versions(routes)


def test_two_versions_change_places_in_one_step() -> None:
    routes = set_weights(set_weights(BARE, {"2": 0.9, "3": 0.1}), {"2": 0.1, "3": 0.9})
    assert routes.weights == {"1": 0.0, "2": 0.1, "3": 0.9}


def test_the_crowned_version_keeps_its_keys_and_the_one_before_stays_without_any() -> None:
    full = set_weights(BARE, {"2": 1.0})
    routes = routing.promote(full, "2")
    assert versions(routes) == versions(full)
    assert (routes.champion.version, routes.target("1").role, routes.target("1").points) == (
        "2",
        "previous",
        0,
    )
    assert routing.promote(routes, "2") is routes


def test_a_crown_leaves_other_canaries_their_keys() -> None:
    routes = set_weights(BARE, {"2": 0.5, "3": 0.2})
    after = routing.promote(routes, "2")
    assert {key for key in KEYS if versions(after)[key] == "3"} == {
        key for key in KEYS if versions(routes)[key] == "3"
    }


def test_a_withdrawn_version_has_nothing_and_can_be_removed() -> None:
    routes = set_weights(BARE, {"2": 0.5})
    with pytest.raises(RoutingError, match="has traffic"):
        routing.remove(routes, "2")
    out = routing.drain(routes, "2")
    assert out.weights["1"] == 1
    assert [one.version for one in routing.remove(out, "2").targets] == ["1", "3"]
    with pytest.raises(RoutingError, match="is the champion"):
        routing.drain(routes, "1")


def test_of_the_champions_before_only_the_last_is_kept_warm() -> None:
    routes = BARE
    for version in ("2", "3"):
        routes = routing.promote(routing.set_weights(routes, {version: 1.0}), version)
    assert {one.version: one.role for one in routes.targets} == {"2": "previous", "3": "champion"}


def test_a_version_is_added_without_weight_and_one_that_is_kept_warm_comes_back() -> None:
    routes = routing.add(BARE, "4", "bundles/d")
    assert routes.weights["4"] == 0
    climbing = set_weights(routes, {"4": 0.1})
    for version in ("4", climbing.champion.version):
        with pytest.raises(RoutingError, match="live already"):
            routing.add(climbing, version, "bundles/d")
    out = routing.drain(climbing, "4")
    assert routing.add(out, "4", "bundles/d").weights["4"] == 0
    warm = routing.promote(set_weights(BARE, {"2": 1.0}), "2")
    assert routing.add(warm, "1", "bundles/a").target("1").role == "canary"


def test_mirrored_requests_are_a_share_of_all_and_never_for_the_version_that_answers() -> None:
    routes = replace(
        BARE, targets=tuple(replace(one, mirror=0.2 * (one.version == "3")) for one in BARE.targets)
    )
    shown = [mirrors(routes, "1", f"request-{n}") for n in range(10_000)]
    assert abs(sum(bool(one) for one in shown) / 10_000 - 0.2) < 4 * (0.2 * 0.8 / 10_000) ** 0.5
    assert {one.version for some in shown for one in some} == {"3"}
    assert not any(mirrors(routes, "3", f"request-{n}") for n in range(1000))


@given(st.text())
def test_a_point_is_one_of_them_and_always_the_same(key: str) -> None:
    assert 0 <= point(key, "m") < POINTS
    assert point(key, "m") == point(key, "m")


def test_no_weight_means_no_key_and_all_means_every_key() -> None:
    assert set(versions(BARE).values()) == {"1"}
    assert set(versions(set_weights(BARE, {"2": 1.0})).values()) == {"2"}


def test_routes_survive_json() -> None:
    routes = set_weights(BARE, {"2": 0.5, "3": 0.2})
    assert Routes.from_dict(json.loads(json.dumps(asdict(routes)))) == routes


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ({"2": 0.7, "3": 0.4}, "sum to more than 1"),
        ({"2": -0.1}, "not between 0 and 1"),
        ({"2": float("nan")}, "not between 0 and 1"),
        ({"9": 0.1}, "not live; live are 1, 2, 3"),
        ({"1": 0.5, "2": 0.1}, "leave its champion 0.9, not the 0.5"),
    ],
)
def test_impossible_weights_are_refused(weights: dict[str, float], said: str) -> None:
    with pytest.raises(RoutingError, match=said):
        set_weights(BARE, weights)


def test_two_champions_or_none_are_refused() -> None:
    one = Target(version="1", role="champion", bundle_key="bundles/a")
    for targets in ((one, replace(one, version="2")), (replace(one, role="canary"),)):
        with pytest.raises(RoutingError, match="exactly one champion"):
            Routes(model="m", targets=targets)


def test_two_versions_with_the_same_points_are_refused() -> None:
    with pytest.raises(RoutingError, match="the same points"):
        Routes(
            model="m",
            targets=(
                BARE.champion,
                Target(version="2", role="canary", bundle_key="b", spans=((0, 10),)),
                Target(version="3", role="canary", bundle_key="b", spans=((9, 20),)),
            ),
        )
