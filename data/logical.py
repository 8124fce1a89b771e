"""From checked images to the logical rows of a dataset version: duplicates, groups, split, name.

`etl` calls it. Pure: the same images give the same rows in the same order and the same version, whatever
number of workers looked at them. Knows neither Ray nor S3.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from data.split import SPLITS, Split, merge_groups, split_of

VERSION_DIGITS = 16


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One image that decoded."""

    source: str
    sha256: str
    """Of the original file."""
    label: str
    patient: str
    """Pseudonym."""
    group_key: str
    sex: str | None
    age: float | None
    view: str | None
    site: str | None
    pixel_sha256: str
    """Of the canonical pixels."""


@dataclass(frozen=True, kw_only=True)
class LogicalRow:
    """One sample of a version; with its pixels, one row of the Parquet files."""

    sample_hash: str
    """Of the canonical pixels and the label."""
    label: str
    label_index: int
    """Position in the version's classes."""
    group_key: str
    """Smallest key of the merged group."""
    split: Split
    source: str
    sha256: str
    sex: str | None
    age: float | None
    view: str | None
    site: str | None


@dataclass(frozen=True, kw_only=True)
class Assembly:
    rows: tuple[LogicalRow, ...]
    """By split name and sample hash."""
    duplicates: int
    """Candidates left out because a row has the same pixels and label."""
    conflicting: tuple[Candidate, ...]
    """Candidates left out because the same pixels have another label too."""


def sample_hash(pixel_sha256: str, label: str) -> str:
    """Identity of a sample."""
    return hashlib.sha256(f"{pixel_sha256}:{label}".encode()).hexdigest()


def assemble(
    candidates: Iterable[Candidate], classes: Sequence[str], *, key: bytes, seed: int = 0
) -> Assembly:
    """Decide which images become rows, and on which side of the split.

    Of equal samples the first by source and SHA-256 stays; all of them tie their groups together.

    Args:
        classes: names in the order of the model's outputs.
        key: the pseudonym key, see `split_of`.
    """
    same: dict[str, list[Candidate]] = defaultdict(list)
    for one in sorted(candidates, key=lambda one: (one.source, one.sha256)):
        same[one.pixel_sha256].append(one)
    agreed = [ones for ones in same.values() if len({one.label for one in ones}) == 1]
    conflicting = [one for ones in same.values() if len({one.label for one in ones}) > 1 for one in ones]
    merged = merge_groups(
        (one.group_key, shared)
        for ones in same.values()
        for one in ones
        for shared in (f"patient {one.patient}", f"pixels {one.pixel_sha256}")
    )
    rows = [_row(ones[0], merged[ones[0].group_key], classes, key, seed) for ones in agreed]
    return Assembly(
        rows=tuple(sorted(rows, key=lambda row: (row.split, row.sample_hash))),
        duplicates=sum(len(ones) - 1 for ones in agreed),
        conflicting=tuple(conflicting),
    )


def version_of(rows: Iterable[LogicalRow], settings: Mapping[str, Any], forgotten: Iterable[str] = ()) -> str:
    """Name of the version: a hash over settings and the sorted hashes of the rows.

    Parquet bytes, times, commits and the order of `rows` have no part in it. The pixels have one through the sample
    hash, and a row that was forgotten keeps its part through its hash alone.

    Args:
        forgotten: hashes of rows that the version had.
    """
    digest = hashlib.sha256(_canonical(settings))
    for one in sorted([*map(row_hash, rows), *forgotten]):
        digest.update(b"\n" + one.encode())
    return digest.hexdigest()[:VERSION_DIGITS]


def row_hash(row: LogicalRow) -> str:
    """Identity of one row; keyed hashes are among what it is made of, so it cannot be guessed from an image."""
    return hashlib.sha256(_canonical(asdict(row))).hexdigest()


def counts(rows: Iterable[LogicalRow], classes: Sequence[str]) -> dict[str, dict[str, int]]:
    """Split → class → number of images, zeros included."""
    table: dict[str, dict[str, int]] = {split: dict.fromkeys(classes, 0) for split in SPLITS}
    for row in rows:
        table[row.split][row.label] += 1
    return table


def _row(one: Candidate, group: str, classes: Sequence[str], key: bytes, seed: int) -> LogicalRow:
    return LogicalRow(
        sample_hash=sample_hash(one.pixel_sha256, one.label),
        label=one.label,
        label_index=classes.index(one.label),
        group_key=group,
        split=split_of(group, key, seed=seed),
        source=one.source,
        sha256=one.sha256,
        sex=one.sex,
        age=one.age,
        view=one.view,
        site=one.site,
    )


def _canonical(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
