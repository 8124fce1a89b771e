"""The profile of a dataset version, as counts: classes, demographics and grey values, source by source.

`data.validation.acceptance` makes one of each version and keeps it in the version's validation report, so that the next
version is compared without reading the images of this one again. Counts only: no row of it is of one person.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

UNKNOWN = "unknown"
SHARES = ("label", "sex", "age", "view")
"""Features that are compared by the shares of their values; `age` in bands."""
GREY = ("mean", "contrast")
"""Features that are compared by their distributions."""
BINS = 256
BIN_OF = {"mean": 1.0, "contrast": 0.5}
"""Grey levels of a bin: means reach 255, standard deviations half of it."""
AGE_BANDS = ((6, "0-5"), (18, "6-17"), (40, "18-39"), (65, "40-64"))
"""Upper age in years, exclusive, and name of the band."""
OLDEST = "65+"


@dataclass(frozen=True, kw_only=True)
class Profile:
    squares: dict[str, int]
    """Source → sum over its patients (groups) of the square of their number of images."""
    images: dict[str, int]
    """Source → number of images."""
    patients: dict[str, int]
    """Source → number of patients (groups)."""
    patients_with: dict[str, dict[str, int]]
    """Source → class → number of patients who have an image of it."""
    shares: dict[str, dict[str, dict[str, int]]]
    """Feature of `SHARES` → source → value → number of images."""
    grey: dict[str, dict[str, dict[str, dict[str, int]]]]
    """Feature of `GREY` → source → class → bin → number of images."""

    def people(self, sources: set[str]) -> float:
        """Return the effective number of patients of these sources: with one image each (Kish 1965)."""
        images = sum(self.images.get(source, 0) for source in sources)
        return images**2 / sum(self.squares[source] for source in sources) if images else 0.0

    def shares_of_patients(self, sources: set[str]) -> dict[str, float]:
        """Return class → share of the patients of these sources who have an image of it."""
        total = sum(self.patients.get(source, 0) for source in sources)
        counts: dict[str, int] = {}
        for source in sources:
            for label, number in self.patients_with.get(source, {}).items():
                counts[label] = counts.get(label, 0) + number
        return {label: number / total for label, number in sorted(counts.items())}

    def values(self, feature: str, sources: set[str]) -> dict[str, int]:
        """Return value of a feature of `SHARES` → number of images, over these sources."""
        total: dict[str, int] = {}
        for source in sorted(sources):
            for value, number in self.shares[feature].get(source, {}).items():
                total[value] = total.get(value, 0) + number
        return total

    def histograms(self, feature: str, sources: set[str]) -> dict[str, np.ndarray]:
        """Return class → histogram_B of a feature of `GREY`, over these sources."""
        total: dict[str, np.ndarray] = {}
        for source in sorted(sources):
            for label, bins in self.grey[feature].get(source, {}).items():
                histogram_B = total.setdefault(label, np.zeros(BINS))
                for bin_, number in bins.items():
                    histogram_B[int(bin_)] += number
        return total


def of(frame: pd.DataFrame) -> Profile:
    """Compute the profile of logical rows with `mean` and `contrast` of their pixels."""
    values = {
        "label": frame["label"],
        "sex": frame["sex"].fillna(UNKNOWN),
        "age": frame["age"].map(age_band),
        "view": frame["view"].fillna(UNKNOWN),
    }
    bins = {name: (frame[name] / BIN_OF[name]).round().clip(0, BINS - 1).astype(int) for name in GREY}
    once = frame.drop_duplicates(["source", "label", "group_key"])
    sizes = frame.groupby(["source", "group_key"]).size()
    return Profile(
        squares={str(k): int(n) for k, n in (sizes**2).groupby(level="source").sum().items()},
        images={str(k): int(n) for k, n in frame["source"].value_counts().sort_index().items()},
        patients={str(k): int(n) for k, n in sizes.groupby(level="source").size().items()},
        patients_with=_tree([once["source"], once["label"]]),
        shares={name: _tree([frame["source"], values[name]]) for name in SHARES},
        grey={name: _tree([frame["source"], frame["label"], bins[name]]) for name in GREY},
    )


def age_band(years: float | None) -> str:
    if years is None or np.isnan(years):
        return UNKNOWN
    return next((name for upper, name in AGE_BANDS if years < upper), OLDEST)


def _tree(columns: list[pd.Series]) -> dict[str, Any]:
    """Return nested dictionaries of counts, a level for each column."""
    tree: dict[str, Any] = {}
    counted = pd.concat(columns, axis=1, keys=range(len(columns))).value_counts().sort_index()
    for path, number in counted.items():
        assert isinstance(path, tuple)
        inner = tree
        for step in path[:-1]:
            inner = inner.setdefault(str(step), {})
        inner[str(path[-1])] = int(number)
    return tree
