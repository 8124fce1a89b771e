"""Put a group on a side of the split by a keyed hash, so that neither other groups nor time can change it.

A group is a patient or a set of near-duplicates; whatever shares a patient or the same pixels is merged into
one group first. Pure arithmetic: knows neither Ray nor torch. The union-find is written here, because those of scipy
and networkx name a set by its size, not by its smallest member, and workers need not load them.
"""

from collections.abc import Iterable
from typing import Literal

from cluster.secrets import keyed_hash

Split = Literal["train", "validation", "test"]
SHARES: dict[Split, float] = {"train": 0.7, "validation": 0.1, "test": 0.2}
SPLITS: tuple[Split, ...] = tuple(SHARES)
DIGITS = 13  # hexadecimal digits that fill the mantissa of a double


def split_of(group_key: str, key: bytes, *, seed: int = 0) -> Split:
    """Return the side of one group.

    Args:
        key: the pseudonym key; without it no group can be steered to a side.
        seed: another seed draws another split; versions that are to be compared share it.
    """
    position = int(keyed_hash(key, "split", str(seed), group_key)[:DIGITS], 16) / 16**DIGITS
    upper = 0.0
    for name, share in SHARES.items():
        upper += share
        if position < upper:
            return name
    return SPLITS[-1]


def merge_groups(members: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Merge the groups that share anything, directly or through others.

    Args:
        members: (group key, what a row of it shares with others: its patient, its content).
    Returns:
        each group key → the smallest group key of the set that it belongs to.
    """
    parent: dict[tuple[str, str], tuple[str, str]] = {}

    def top(node: tuple[str, str]) -> tuple[str, str]:
        parent.setdefault(node, node)
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    groups = set()
    for group, shared in members:
        groups.add(group)
        low, high = sorted((top(("group", group)), top(("shared", shared))))
        parent[high] = low  # "group" sorts before "shared": the top is always the smallest group
    return {group: top(("group", group))[1] for group in groups}
