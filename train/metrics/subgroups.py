"""Subgroup tables by sex, age band, view and source: in which group does the model miss more?

fairlearn's `MetricFrame` makes the tables, and each gap has an interval over patients. Pure arithmetic on answers and
known attributes of the patients; knows no model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from fairlearn.metrics import MetricFrame

from train.metrics.abstention import false_normal
from train.metrics.bootstrap import Estimate, Resampling, flat, ratio
from train.metrics.gate_inputs import Gap

AGE_BANDS = ((18, "under 18"), (40, "18 to 39"), (60, "40 to 59"), (75, "60 to 74"), (200, "75 and over"))
"""Upper ends (exclusive, years) and names."""
UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One subgroup."""

    attribute: str
    """sex, age, view or source."""
    subgroup: str
    images: int
    findings: int
    """Images that show a finding: the denominator of the false-normal rate."""
    accuracy: Estimate
    false_normal_rate: Estimate | None

    def flat(self) -> dict[str, Any]:
        row: dict[str, Any] = {
            name: getattr(self, name) for name in ("attribute", "subgroup", "images", "findings")
        }
        return row | flat(accuracy=self.accuracy, false_normal_rate=self.false_normal_rate)


def attributes(
    sexes: Sequence[str | None],
    ages: Sequence[float | None],
    views: Sequence[str | None],
    sources: Sequence[str],
) -> dict[str, np.ndarray]:
    """Return attribute → value of each image, `UNKNOWN` where it is not recorded."""
    return {
        "sex": np.array([sex or UNKNOWN for sex in sexes]),
        "age": np.array([_band(age) for age in ages]),
        "view": np.array([view.upper() if view else UNKNOWN for view in views]),
        "source": np.array(list(sources)),
    }


def table(
    labels_N: np.ndarray,
    answers_N: np.ndarray,
    names: Sequence[str],
    known: Mapping[str, np.ndarray],
    groups: Sequence[str],
) -> list[Row]:
    """Compute one row a subgroup, attribute by attribute."""
    missed_N, found_N = false_normal(labels_N, answers_N, names)
    right_N, group_N = labels_N == answers_N, np.asarray(groups)
    rows = []
    for attribute, values_N in known.items():
        for subgroup, figures in _frame(right_N, missed_N, found_N, values_N).by_group.iterrows():
            among_N = values_N == subgroup
            resampling = Resampling(group_N[among_N].tolist())
            rows.append(
                Row(
                    attribute=attribute,
                    subgroup=str(subgroup),
                    images=int(figures["images"]),
                    findings=int(figures["findings"]),
                    accuracy=_with_interval(figures["accuracy"], resampling.share(right_N[among_N])),
                    false_normal_rate=resampling.share(missed_N[among_N], found_N[among_N]),
                )
            )
    return rows


def gaps(
    labels_N: np.ndarray,
    answers_N: np.ndarray,
    names: Sequence[str],
    known: Mapping[str, np.ndarray],
    groups: Sequence[str],
    *,
    least_images: int,
) -> list[Gap]:
    """Find each attribute's widest gap, among subgroups with enough images with a finding; unknown is no subgroup."""
    missed_N, found_N = false_normal(labels_N, answers_N, names)
    missed_F, group_F = missed_N[found_N], np.asarray(groups)[found_N]
    return [
        _gap(attribute, missed_F, values_N[found_N], group_F, least_images)
        for attribute, values_N in known.items()
    ]


def _gap(
    attribute: str, missed_F: np.ndarray, values_F: np.ndarray, group_F: np.ndarray, least_images: int
) -> Gap:
    known = (subgroup for subgroup in np.unique(values_F) if subgroup != UNKNOWN)
    sizes = {str(subgroup): int((values_F == subgroup).sum()) for subgroup in known}
    large = [subgroup for subgroup, size in sizes.items() if size >= least_images]
    if len(large) < 2:
        return Gap(attribute=attribute, estimate=None, images=sorted([0, 0, *sizes.values()])[-2])
    among_F = np.isin(values_F, large)
    missed, values = missed_F[among_F], values_F[among_F]
    frame = _frame(~missed, missed, np.ones(len(missed), bool), values)
    rates = frame.by_group["false_normal_rate"].astype(float)
    resampling = Resampling(group_F[among_F].tolist())
    of_RS = np.column_stack([values == subgroup for subgroup in large])
    counts_RS = resampling.sums(np.column_stack([of_RS, of_RS & missed[:, None]]))
    rates_RS = ratio(counts_RS[:, len(large) :], counts_RS[:, : len(large)])
    most, least = str(rates.idxmax()), str(rates.idxmin())
    widest_R = rates_RS[:, large.index(most)] - rates_RS[:, large.index(least)]
    return Gap(
        attribute=attribute,
        estimate=resampling.estimate(float(frame.difference()["false_normal_rate"]), widest_R),
        most=most,
        least=least,
        images=min(sizes[most], sizes[least]),
    )


def _frame(
    right_N: np.ndarray, missed_N: np.ndarray, found_N: np.ndarray, values_N: np.ndarray
) -> MetricFrame:
    """Compute the figures by subgroup; the metrics get image numbers in place of labels."""
    numbers_N = np.arange(len(right_N))
    return MetricFrame(
        metrics={
            "images": lambda true, _: len(true),
            "findings": lambda true, _: int(found_N[true].sum()),
            "accuracy": lambda true, _: float(right_N[true].mean()),
            "false_normal_rate": lambda true, _: (
                float(missed_N[true].sum() / found_N[true].sum()) if found_N[true].any() else np.nan
            ),
        },
        y_true=numbers_N,
        y_pred=numbers_N,
        sensitive_features=pd.Series(values_N, name="subgroup"),
    )


def _with_interval(value: float, estimate: Estimate | None) -> Estimate:
    assert estimate is not None  # a subgroup has an image
    assert np.isclose(estimate.value, value)
    return estimate


def _band(age: float | None) -> str:
    if age is None or np.isnan(age):
        return UNKNOWN
    return next((name for end, name in AGE_BANDS if age < end), UNKNOWN)
