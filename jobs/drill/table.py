"""What a drill found, case by case: its table, and how the assignments of the ledger are judged."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from scipy.stats import binom

from jobs.runtime import markdown

CONFIDENCE = 0.99


@dataclass(frozen=True, kw_only=True)
class Row:
    """One case of the table."""

    case: str
    state: str
    """In which its last rollout is; "-" for a case without one."""
    went: bool
    """Whether it did what the case is about."""
    seconds: float
    """Until then."""
    out_s: float | None
    """From a fault to the end of the rollout; None where none was injected."""
    requests: int
    raw_failures: int
    """First tries that were not answered with 201."""
    lost: int
    """Requests that failed twice."""
    fallbacks: int
    """Answered by another version than the one they were assigned to."""
    killed: int
    """Processes."""
    flips: int
    """Patients who went back and forth."""
    off_weight: int
    """Steps whose share of patients lies outside the interval of its weight."""

    @property
    def bad(self) -> int:
        """What should be 0."""
        return self.lost + self.flips + self.off_weight + (not self.went)


def judged(rows: Iterable[Mapping[str, Any]]) -> tuple[int, int]:
    """Count the flips, and the steps that are off their weight.

    A patient may leave a version only when its weight fell. In each revision of the routes the number of patients that
    a version has lies in the central binomial interval of its weight, of 99 % for all revisions together (Bonferroni).

    Args:
        rows: patient and assignment of each request, in order of time.
    """
    flips = 0
    last: dict[str, dict[str, Any]] = {}
    patients: dict[tuple[int, str], set[str]] = {}
    weights: dict[int, dict[str, float]] = {}
    for row in rows:
        patient, assignment = row["patient"], row["assignment"]
        revision, version = assignment["revision"], assignment["version"]
        weights[revision] = assignment["weights"]
        patients.setdefault((revision, version), set()).add(patient)
        before = last.get(patient)
        if before is not None and revision < before["revision"]:
            continue  # two front doors learn of a revision a moment apart
        if before is not None and before["version"] != version:
            left = before["version"]
            flips += assignment["weights"].get(left, 0.0) >= before["weights"][left]
        last[patient] = assignment
    return flips, sum(_off(revision, shares, patients, len(weights)) for revision, shares in weights.items())


def _off(
    revision: int, shares: dict[str, float], patients: dict[tuple[int, str], set[str]], revisions: int
) -> bool:
    counts = {version: len(patients.get((revision, version), ())) for version in shares}
    total = sum(counts.values())
    bounds = {
        version: binom.interval(1 - (1 - CONFIDENCE) / revisions, total, shares[version])
        for version in shares
    }
    return any(not low <= counts[version] <= high for version, (low, high) in bounds.items())


def table(rows: list[Row], *, header: bool = True) -> str:
    """Write rows as a Markdown table.

    Args:
        header: False for lines that are put below others.
    """
    if header:
        return markdown.table(list(vars(rows[0])), (vars(row).values() for row in rows))
    return "".join(markdown.row(vars(row).values()) for row in rows)
