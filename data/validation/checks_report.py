"""Render the page of a validation: why a dataset version may or may not be trained on, as one HTML file.

`data.validation.acceptance` stores it under the version. It shows the checks and how the version compares with the
accepted one, in counts; no image, no path, no patient.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data.validation.config import Check, failed
from data.validation.dataset_report import render_template
from data.validation.profile import BIN_OF, BINS, GREY, SHARES, Profile

TEMPLATE = Path(__file__).with_name("checks_report.html.j2")
SIDES = ("now", "before")


def page(
    report: Mapping[str, Any], checks: Sequence[Check], now: Profile | None, before: Profile | None
) -> str:
    """Render the whole page.

    Args:
        now, before: profiles of the version and of the one that it was compared with.
    """
    profiles = [profile for profile in (now, before) if now and profile]
    sources = set.intersection(*({*profile.images} for profile in profiles)) if profiles else set()
    if now and not sources:
        sources = {*now.images}
    return render_template(
        TEMPLATE,
        report=report,
        checks=checks,
        bad=len(failed(checks)),
        sides=SIDES[: len(profiles)],
        shares={name: _shares([profile.values(name, sources) for profile in profiles]) for name in SHARES},
        histograms={
            name: _lines([_density(profile, name, sources) for profile in profiles]) for name in GREY
        },
        bins=BINS,
        bin_of=BIN_OF,
    )


def _shares(sides: Sequence[Mapping[str, int]]) -> dict[str, list[tuple[int, float]]]:
    """Return value → count and share, on each side."""
    values = sorted({value for counts in sides for value in counts})
    return {
        value: [
            (counts.get(value, 0), counts.get(value, 0) / (sum(counts.values()) or 1)) for counts in sides
        ]
        for value in values
    }


def _lines(densities: Sequence[np.ndarray]) -> list[str]:
    """Return the points of each distribution as a line over the grey levels, in a square of 100."""
    top = max((float(density_B.max()) for density_B in densities), default=1.0) or 1.0
    return [
        " ".join(f"{bin_},{100 - 95 * value / top:.1f}" for bin_, value in enumerate(density_B))
        for density_B in densities
    ]


def _density(profile: Profile, name: str, sources: set[str]) -> np.ndarray:
    whole_B = sum(profile.histograms(name, sources).values(), start=np.zeros(BINS))
    smooth_B: np.ndarray = np.convolve(whole_B, np.ones(5) / 5, mode="same")
    return smooth_B / max(smooth_B.sum(), 1.0)
