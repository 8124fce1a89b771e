"""The split is stable, keyed, near its shares, and never cuts through what belongs together."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.dataset.split import SHARES, SPLITS, merge_groups, split_of

KEY = bytes(range(32))
MEMBERS = st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from("uvwxyz")))


def test_known_groups_stay_where_they_are() -> None:
    """Pinned: a change of the hash would move test images into training."""
    assert [split_of(f"group {n}", KEY) for n in range(8)] == [
        "train",
        "test",
        "test",
        "train",
        "train",
        "train",
        "train",
        "validation",
    ]


@given(st.text(), st.integers(0, 5))
def test_a_group_has_one_side_whoever_asks(group: str, seed: int) -> None:
    side = split_of(group, KEY, seed=seed)
    assert side in SPLITS
    assert side == split_of(group, KEY, seed=seed)


def test_the_shares_are_kept_over_many_groups() -> None:
    counted = Counter(split_of(str(n), KEY) for n in range(20_000))
    for name, share in SHARES.items():
        assert counted[name] / 20_000 == pytest.approx(share, abs=0.01)


def test_another_key_or_seed_draws_another_split() -> None:
    groups = [str(n) for n in range(200)]
    first = [split_of(one, KEY) for one in groups]
    assert first != [split_of(one, bytes(32)) for one in groups]
    assert first != [split_of(one, KEY, seed=1) for one in groups]


@given(MEMBERS)
def test_groups_that_share_anything_become_one(members: list[tuple[str, str]]) -> None:
    merged = merge_groups(members)
    assert merged.keys() == {group for group, _ in members}
    for group, shared in members:
        for other, also in members:
            if shared == also:
                assert merged[group] == merged[other]


@given(MEMBERS)
def test_a_merged_group_is_named_by_its_smallest_and_takes_in_no_stranger(
    members: list[tuple[str, str]],
) -> None:
    merged = merge_groups(members)
    for name in set(merged.values()):
        inside = {group for group, top in merged.items() if top == name}
        assert name == min(inside)
        ties = {shared for group, shared in members if group in inside}
        assert all(group in inside for group, shared in members if shared in ties)
        assert len(inside) == 1 or _connected(inside, members)


@given(MEMBERS)
def test_the_order_of_the_rows_does_not_matter(members: list[tuple[str, str]]) -> None:
    assert merge_groups(members) == merge_groups(reversed(members))


def _connected(inside: set[str], members: list[tuple[str, str]]) -> bool:
    reached = {min(inside)}
    for _ in inside:
        ties = {shared for group, shared in members if group in reached}
        reached |= {group for group, shared in members if shared in ties}
    return reached == inside
