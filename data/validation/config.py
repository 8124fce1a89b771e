"""The inputs and results of validation: limits, the version, its baseline, and the result of a check.

`data.validation.checks` and `data.validation.shift_checks` produce checks; `data.validation.acceptance` and the
report read them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pandas as pd

from data.validation.profile import Profile

Verdict = Literal["pass", "warn", "fail", "not evaluable"]
UNLICENSED = "unknown"
LICENSES = (
    *(
        "CC0*",
        "PDDL*",
        "public domain*",
        "CC BY",
        "CC BY [0123456789(]*",
        "CC BY SA*",
        "CC BY NC",
        "CC BY NC [0123456789(]*",
    ),
    *("CC BY NC SA*", "ODC By*", "MIT*", "repo MIT*", "Apache*", "NIH Clinical Center*"),
    *("RSNA Pneumonia Challenge*", "listed as authorized for everyone*"),
    "Data files © original authors*",
)
"""Conditions that allow to train a model for research: with attribution, some not commercially, none that forbids
derivatives. Patterns of the shell, without regard to case; hyphens and underscores count as blanks."""


@dataclass(frozen=True, kw_only=True)
class ValidationConfig:
    """Limits of the checks; measured false alarms and misses of the comparisons are in docs/data.md."""

    licenses: tuple[str, ...] = LICENSES
    """Allowed licences. One that is named and matches none halts."""
    allow_unlicensed: bool = True
    """True: images without a licence (a site's own) only warn; false: they halt."""
    judged_from: int = 20
    """Images from which a share is judged."""
    largest_reject_share: float = 0.5
    """Of the images that were looked at, those that may be in quarantine."""
    largest_extreme_share: float = 0.05
    """Of the images, those that may be almost black, almost white or almost without contrast."""
    darkest: float = 6.0
    """Mean grey level (of 255) below which an image is almost black; real X-rays: 20 to 216."""
    brightest: float = 240.0
    """Mean grey level above which it is almost white."""
    least_contrast: float = 6.0
    """Standard deviation of the grey levels below which it is almost without contrast; real X-rays: 37 to 107."""
    fewest_classes: int = 2
    """Classes that have an image."""
    largest_class_share: float = 0.95
    """Share of the commonest class."""
    largest_index: float = 0.25
    """Population stability index from which shares of classes, sexes, ages, views or sources have shifted."""
    largest_distance: float = 0.2
    """Kolmogorov-Smirnov distance from which grey values have shifted."""
    chance: float = 1e-4
    """How improbable a shift has to be besides: what few images may show by chance alone raises no alarm."""

    def __post_init__(self) -> None:
        for name in ("largest_reject_share", "largest_extreme_share", "largest_class_share", "chance"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"validation.{name} is a share: give 0 to 1, not {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class Check:
    name: str
    verdict: Verdict
    finding: str
    """One line for people."""
    figures: dict[str, Any] = field(default_factory=dict)
    """What the verdict rests on."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One dataset version, ready to be judged."""

    rows: pd.DataFrame
    """The columns of `data.dataset.rows.LogicalRow` and, of the pixels, `mean`, `contrast` and `pixel_bytes`."""
    described: Mapping[str, Any]
    """Its manifest."""


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """The accepted version to compare with."""

    version: str
    profile: Profile
    same_pixels: bool
    """True when its images became pixels in the same way, so that grey values can be compared."""
    sample_hashes: frozenset[str]
    """Of its rows: the others of a version are newcomers."""
    missing_sources: tuple[str, ...]
    """Sources that it has and that this version was meant to have, and has not."""


def failed(checks: Sequence[Check]) -> list[Check]:
    """Return the checks that failed."""
    return [check for check in checks if check.verdict == "fail"]
