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

from data.dataset.groups import Image, Member, Placement, Withheld, place
from data.dataset.near_duplicates import near_duplicates
from data.dataset.split import SPLITS, Split

VERSION_DIGITS = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate(Member):
    """One image that decoded; its pixel hash is of the canonical pixels."""

    label: str
    sex: str | None
    age: float | None
    view: str | None
    site: str | None
    fingerprint: bytes = b""
    """What near-duplicates are found by, see `data.dataset.near_duplicates`; empty: none are looked for."""


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
    """Compute the identity of a sample."""
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
    every = sorted(candidates, key=lambda candidate: candidate.image)
    before = list(before)
    near = _near(every)
    placing = place(every, near=near, before=before, key=key, seed=seed)
    placed = [candidate for candidate in every if candidate.image in placing.sides]
    same: dict[str, list[Candidate]] = defaultdict(list)
    for candidate in placed:
        same[candidate.pixel_sha256].append(candidate)
    agreed = [
        same_pixels
        for same_pixels in same.values()
        if len({candidate.label for candidate in same_pixels}) == 1
    ]
    rows = [
        _row(
            same_pixels[0], placing.names[same_pixels[0].image], placing.sides[same_pixels[0].image], classes
        )
        for same_pixels in agreed
    ]
    known = {candidate.fact for candidate in before}
    decided = (
        _placement(candidate, patient, group_key, placing.sides[candidate.image])
        for candidate in placed
        for patient, group_key in ((candidate.patient, candidate.group_key), *candidate.others)
    )
    return Assembly(
        rows=tuple(sorted(rows, key=lambda row: (row.split, row.sample_hash))),
        duplicates=sum(len(same_pixels) - 1 for same_pixels in agreed),
        conflicting=tuple(
            candidate
            for same_pixels in same.values()
            if len({candidate.label for candidate in same_pixels}) > 1
            for candidate in same_pixels
        ),
        withheld=placing.withheld,
        placements=tuple(candidate for candidate in decided if candidate.fact not in known),
        near_duplicates=len(near),
    )


def version_of(rows: Iterable[LogicalRow], settings: Mapping[str, Any], forgotten: Iterable[str] = ()) -> str:
    """Name the version: a hash over settings and the sorted hashes of the rows.

    Parquet bytes, times, commits and the order of `rows` have no part in it. The pixels have one through the sample
    hash, and a row that was forgotten keeps its part through its hash alone.

    Args:
        forgotten: hashes of rows that the version had.
    """
    digest = hashlib.sha256(_canonical(settings))
    for digits in sorted([*map(row_hash, rows), *forgotten]):
        digest.update(b"\n" + digits.encode())
    return digest.hexdigest()[:VERSION_DIGITS]


def row_hash(row: LogicalRow) -> str:
    """Compute the identity of one row; it covers keyed hashes, so it cannot be guessed from an image."""
    return hashlib.sha256(_canonical(asdict(row))).hexdigest()


def counts(rows: Iterable[LogicalRow], classes: Sequence[str]) -> dict[str, dict[str, int]]:
    """Split → class → number of images, zeros included."""
    table: dict[str, dict[str, int]] = {split: dict.fromkeys(classes, 0) for split in SPLITS}
    for row in rows:
        table[row.split][row.label] += 1
    return table


def _near(candidates: Sequence[Candidate]) -> list[tuple[Image, Image]]:
    candidates_seen = [first for first in candidates if first.fingerprint]
    pairs = near_duplicates(
        [first.fingerprint for first in candidates_seen], [first.group_key for first in candidates_seen]
    )
    return [(candidates_seen[first].image, candidates_seen[second].image) for first, second in pairs]


def _placement(candidate: Candidate, patient: str, group_key: str, side: Split) -> Placement:
    return Placement(
        source=candidate.source,
        sha256=candidate.sha256,
        patient=patient,
        group_key=group_key,
        split=side,
        decided=0,
    )


def _row(candidate: Candidate, group: str, side: Split, classes: Sequence[str]) -> LogicalRow:
    return LogicalRow(
        sample_hash=sample_hash(candidate.pixel_sha256, candidate.label),
        label=candidate.label,
        label_index=classes.index(candidate.label),
        group_key=group,
        split=side,
        source=candidate.source,
        sha256=candidate.sha256,
        sex=candidate.sex,
        age=candidate.age,
        view=candidate.view,
        site=candidate.site,
    )


def _canonical(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
