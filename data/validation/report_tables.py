"""The tables of a dataset report: classes by source, and demographics, each by split.

`data.validation.dataset_report` shows them. Pure counting over rows.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data.dataset.split import SPLITS

AGE_BANDS_YEARS = ((0, 2), (2, 12), (12, 18), (18, 40), (40, 65), (65, 200))
UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class Table:
    """Counts by two keys, with sums."""

    title: str
    note: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, tuple[int, ...]], ...]

    @property
    def sums(self) -> tuple[int, ...]:
        return tuple(sum(column) for column in zip(*(cells for _, cells in self.rows), strict=True))


def class_by_source(rows: Sequence[Mapping[str, Any]], classes: Sequence[str]) -> Table:
    counted = Counter((row["label"], row["source"], row["split"]) for row in rows)
    sources = sorted({row["source"] for row in rows})
    lines = [
        (f"{label} · {source}", tuple(counted[label, source, split] for split in SPLITS))
        for label in classes
        for source in sources
        if any(counted[label, source, split] for split in SPLITS)
    ]
    return Table(
        title="Class by source by split",
        note="A class that comes from one source alone cannot be told from that source.",
        heads=tuple(SPLITS),
        rows=tuple(lines),
    )


def demographics(rows: Sequence[Mapping[str, Any]]) -> Iterator[Table]:
    named = {
        "Sex": lambda row: row["sex"] or UNKNOWN,
        "Age": lambda row: age_band(row["age"]),
        "View": lambda row: row["view"] or UNKNOWN,
    }
    for title, value in named.items():
        counted = Counter((value(row), row["split"]) for row in rows)
        order = [*sorted({name for name, _ in counted} - {UNKNOWN}, key=_natural), UNKNOWN]
        yield Table(
            title=title,
            note="Images, not patients.",
            heads=tuple(SPLITS),
            rows=tuple(
                (name, tuple(counted[name, split] for split in SPLITS))
                for name in order
                if any(counted[name, split] for split in SPLITS)
            ),
        )


def age_band(years: float | None) -> str:
    """Return `0-1 years`, `2-11 years`, ... `65 years and over`, or unknown."""
    for low, high in AGE_BANDS_YEARS:
        if years is not None and low <= years < high:
            return f"{low}-{high - 1} years" if high < AGE_BANDS_YEARS[-1][1] else f"{low} years and over"
    return UNKNOWN


def _natural(name: str) -> tuple[int, str]:
    digits = name.split("-")[0].split(" ")[0]
    return (int(digits) if digits.isdigit() else 0, name)
