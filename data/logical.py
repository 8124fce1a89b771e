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

from data.groups import Image, Member, Placement, Withheld, place
from data.near_duplicates import near_duplicates
from data.split import SPLITS, Split

VERSION_DIGITS = 16


@dataclass(frozen=True, kw_only=True, slots=True)
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
    others: tuple[tuple[str, str], ...] = ()
    """Patient and group key of whoever else the same file is said to be of, see `data.owners`."""
    fingerprint: bytes = b""
    """What near-duplicates are found by, see `data.near_duplicates`; empty: none are looked for."""

    @property
    def image(self) -> Image:
        return self.source, self.sha256


@dataclass(frozen=True, kw_only=True, slots=True)
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
    withheld: tuple[Withheld, ...] = ()
    """Candidates left out because they would tie two sides together."""
    placements: tuple[Placement, ...] = ()
    """What was decided here and in no version before, to be remembered; its number is still 0."""
    near_duplicates: int = 0
    """Pairs of copies in what the sources call different groups."""


def sample_hash(pixel_sha256: str, label: str) -> str:
    """Identity of a sample."""
    return hashlib.sha256(f"{pixel_sha256}:{label}".encode()).hexdigest()


def assemble(
    candidates: Iterable[Candidate],
    classes: Sequence[str],
    *,
    key: bytes,
    seed: int = 0,
    before: Iterable[Placement] = (),
) -> Assembly:
    """Decide which images become rows, and on which side of the split.

    Of equal samples the first by source and SHA-256 stays; all of them tie their groups together, and so do
    copies of one picture.

    Args:
        classes: names in the order of the model's outputs.
        key: the pseudonym key, see `split_of`.
        before: what earlier versions decided, see `place`.
    """
    every = sorted(candidates, key=lambda one: one.image)
    before = list(before)
    near = _near(every)
    placing = place([_member(one) for one in every], near=near, before=before, key=key, seed=seed)
    placed = [one for one in every if one.image in placing.sides]
    same: dict[str, list[Candidate]] = defaultdict(list)
    for one in placed:
        same[one.pixel_sha256].append(one)
    agreed = [ones for ones in same.values() if len({one.label for one in ones}) == 1]
    rows = [
        _row(ones[0], placing.names[ones[0].image], placing.sides[ones[0].image], classes) for ones in agreed
    ]
    known = {one.fact for one in before}
    decided = (
        _placement(one, patient, group_key, placing.sides[one.image])
        for one in placed
        for patient, group_key in ((one.patient, one.group_key), *one.others)
    )
    return Assembly(
        rows=tuple(sorted(rows, key=lambda row: (row.split, row.sample_hash))),
        duplicates=sum(len(ones) - 1 for ones in agreed),
        conflicting=tuple(
            one for ones in same.values() if len({one.label for one in ones}) > 1 for one in ones
        ),
        withheld=placing.withheld,
        placements=tuple(one for one in decided if one.fact not in known),
        near_duplicates=len(near),
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


def _near(candidates: Sequence[Candidate]) -> list[tuple[Image, Image]]:
    seen = [one for one in candidates if one.fingerprint]
    pairs = near_duplicates([one.fingerprint for one in seen], [one.group_key for one in seen])
    return [(seen[one].image, seen[other].image) for one, other in pairs]


def _member(one: Candidate) -> Member:
    return Member(
        image=one.image,
        patient=one.patient,
        group_key=one.group_key,
        pixel_sha256=one.pixel_sha256,
        others=one.others,
    )


def _placement(one: Candidate, patient: str, group_key: str, side: Split) -> Placement:
    return Placement(
        source=one.source,
        sha256=one.sha256,
        patient=patient,
        group_key=group_key,
        split=side,
        decided=0,
    )


def _row(one: Candidate, group: str, side: Split, classes: Sequence[str]) -> LogicalRow:
    return LogicalRow(
        sample_hash=sample_hash(one.pixel_sha256, one.label),
        label=one.label,
        label_index=classes.index(one.label),
        group_key=group,
        split=side,
        source=one.source,
        sha256=one.sha256,
        sex=one.sex,
        age=one.age,
        view=one.view,
        site=one.site,
    )


def _canonical(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
