"""The figures of one model version on one split, computed once from logits: for the gates, MLflow and people.

Pure arithmetic; `train.metrics.plots` draws them, `train.evaluation.model_card` phrases them.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from data.model_card import Calibration
from train.metrics import abstention, calibration, classification, subgroups
from train.metrics.abstention import Point
from train.metrics.bootstrap import Estimate, Resampling, flat, share
from train.metrics.calibration import Bin, probabilities
from train.metrics.classification import Cell, ClassResult, Overall
from train.metrics.gate_inputs import ClassCount
from train.metrics.subgroups import Row


@dataclass(frozen=True, kw_only=True)
class Answered:
    """The images of one split with the model's logits."""

    logits_NK: np.ndarray
    labels_N: np.ndarray
    groups: Sequence[str]
    sources: Sequence[str]
    sexes: Sequence[str | None]
    ages: Sequence[float | None]
    views: Sequence[str | None]

    def known(self) -> dict[str, np.ndarray]:
        """Return the attributes that define subgroups."""
        return subgroups.attributes(self.sexes, self.ages, self.views, self.sources)


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """The validation images, which the calibration was fitted on: coverage depends on them too."""

    logits_NK: np.ndarray
    labels_N: np.ndarray
    groups: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Source:
    """One source's images."""

    images: int
    groups: int
    overall: Overall
    false_normal_rate: Estimate | None
    classes: Sequence[ClassResult]

    def as_dict(self) -> dict[str, Any]:
        """Return all figures; `value`, `low` and `high` are the accuracy's."""
        accuracy = {name: getattr(self.overall.accuracy, name) for name in ("value", "low", "high")}
        row = {"images": self.images, "groups": self.groups, **accuracy, **self.overall.flat()}
        return row | flat(false_normal_rate=self.false_normal_rate)


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything that evaluation measured on the test split."""

    overall: Overall
    macro_auroc: Estimate | None
    false_normal_rate: Estimate | None
    """Share of images with a finding that are answered as normal; None without such images."""
    abnormal: Mapping[str, Estimate] | None
    """`auroc` and `sensitivity` of "some finding" against none, by the summed probabilities; None without both."""
    ece_before: Estimate
    """Expected calibration error with temperature 1."""
    ece: Estimate
    coverage: Estimate
    """Share of conformal sets that hold the truth, before the top class is put into each."""
    promised_coverage: float
    set_coverage: Estimate
    """The same of the sets that serving returns, which always hold the top class."""
    set_size: Estimate
    """Mean number of classes in such a set."""
    abstained: Estimate
    """Share of images without a definite answer."""
    answered_accuracy: Estimate | None
    """Accuracy on the others."""
    classes: Sequence[ClassResult]
    cells: Sequence[Cell]
    """The confusion matrix, with intervals."""
    sources: Mapping[str, Source]
    subgroups: Sequence[Row]
    abstention: Sequence[Point]
    reliability: Mapping[str, Sequence[Bin]]
    """`before` and `after` temperature scaling."""
    confusion_KK: np.ndarray
    probabilities_NK: np.ndarray = field(repr=False)
    labels_N: np.ndarray = field(repr=False)

    @property
    def accuracy(self) -> Estimate:
        return self.overall.accuracy

    def scalars(self) -> dict[str, float]:
        """Return flat figures, as MLflow and the job's last line take them."""
        named: dict[str, float] = {
            **self.overall.flat(),
            **flat(
                ece_before=self.ece_before,
                ece=self.ece,
                coverage=self.coverage,
                set_coverage=self.set_coverage,
                set_size=self.set_size,
                abstained=self.abstained,
            ),
            "images": self.accuracy.images,
            "groups": self.accuracy.groups,
            **flat(
                macro_auroc=self.macro_auroc,
                false_normal_rate=self.false_normal_rate,
                answered_accuracy=self.answered_accuracy,
                **{f"abnormal_{name}": figure for name, figure in (self.abnormal or {}).items()},
            ),
        }
        return {name: float(value) for name, value in named.items()}

    def class_counts(self) -> list[ClassCount]:
        """Return the inputs of the class floors."""
        return [
            ClassCount(
                label=result.label,
                recall=result.recall.value if result.recall else None,
                images=result.images,
                groups=result.groups,
            )
            for result in self.classes
        ]

    def as_dict(self) -> dict[str, Any]:
        return {
            **self.scalars(),
            "classes": [part.flat() for part in self.classes],
            "sources": {name: part.as_dict() for name, part in self.sources.items()},
            "subgroups": [part.flat() for part in self.subgroups],
            "abstention": [part.flat() for part in self.abstention],
            "reliability": {name: [asdict(part) for part in bins] for name, bins in self.reliability.items()},
            "confusion": self.confusion_KK.tolist(),
        }

    def tables(self) -> dict[str, str]:
        """Return file name → CSV."""
        by_source = [
            {"source": name, **part.flat()}
            for name, source in self.sources.items()
            for part in source.classes
        ]
        return {
            "classes.csv": as_csv([part.flat() for part in self.classes]),
            "confusion.csv": as_csv([part.flat() for part in self.cells]),
            "sources.csv": as_csv(
                [{"source": name, **part.as_dict()} for name, part in self.sources.items()]
            ),
            "source_classes.csv": as_csv(by_source),
            "subgroups.csv": as_csv([part.flat() for part in self.subgroups]),
            "abstention.csv": as_csv([part.flat() for part in self.abstention]),
        }


def build(answered: Answered, held_out: HeldOut, names: Sequence[str], fitted: Calibration) -> Report:
    """Compute everything; at least one image on both sides."""
    labels_N = answered.labels_N
    resampling = Resampling(answered.groups)
    chances_NK = probabilities(answered.logits_NK, fitted.temperature)
    raw_NK = probabilities(answered.logits_NK, 1.0)
    held_out_MK = probabilities(held_out.logits_NK, fitted.temperature)
    answers_N, rows = chances_NK.argmax(axis=1), np.arange(len(labels_N))
    sets_NK = calibration.prediction_sets(chances_NK, fitted.conformal_threshold)
    answered_N = chances_NK.max(axis=1) >= fitted.abstain_below
    classes = classification.per_class(labels_N, chances_NK, answered.groups, names, resampling)
    missed_N, found_N = abstention.false_normal(labels_N, answers_N, names)
    return Report(
        overall=classification.overall(labels_N, answers_N, len(names), resampling),
        macro_auroc=classification.macro_auroc(labels_N, chances_NK, resampling),
        false_normal_rate=resampling.share(missed_N, found_N),
        abnormal=classification.ranked(
            found_N, chances_NK[:, abstention.findings(names)].sum(axis=1), resampling
        ),
        ece_before=calibration.estimate_calibration_error(raw_NK, labels_N, resampling),
        ece=calibration.estimate_calibration_error(chances_NK, labels_N, resampling),
        coverage=calibration.estimate_coverage(
            chances_NK[rows, labels_N],
            resampling,
            fitted,
            held_out_MK[np.arange(len(held_out.labels_N)), held_out.labels_N],
            Resampling(held_out.groups, seed=1),
        ),
        promised_coverage=fitted.coverage,
        set_coverage=share(sets_NK[rows, labels_N], answered.groups),
        set_size=share(sets_NK.sum(axis=1), answered.groups),
        abstained=share(~answered_N, answered.groups),
        answered_accuracy=resampling.share(answers_N == labels_N, answered_N),
        classes=classes,
        cells=classification.cells(labels_N, answers_N, names, resampling),
        sources=_sources(answered, chances_NK, names),
        subgroups=subgroups.table(labels_N, answers_N, names, answered.known(), answered.groups),
        abstention=abstention.curve(chances_NK, labels_N, names, resampling),
        reliability={
            "before": calibration.reliability(raw_NK, labels_N),
            "after": calibration.reliability(chances_NK, labels_N),
        },
        confusion_KK=classification.confusion(labels_N, answers_N, len(names)),
        probabilities_NK=chances_NK,
        labels_N=labels_N,
    )


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Write a table whose columns are those of all rows."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    written = io.StringIO()
    table = csv.DictWriter(written, fieldnames=columns, lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return written.getvalue()


def _sources(answered: Answered, chances_NK: np.ndarray, names: Sequence[str]) -> dict[str, Source]:
    source_N, group_N = np.asarray(answered.sources), np.asarray(answered.groups)
    return {
        str(name): _source(
            answered.labels_N[source_N == name],
            chances_NK[source_N == name],
            group_N[source_N == name].tolist(),
            names,
        )
        for name in np.unique(source_N)
    }


def _source(
    labels_N: np.ndarray, chances_NK: np.ndarray, groups: Sequence[str], names: Sequence[str]
) -> Source:
    resampling = Resampling(groups)
    answers_N = chances_NK.argmax(axis=1)
    missed_N, found_N = abstention.false_normal(labels_N, answers_N, names)
    occurring = classification.per_class(labels_N, chances_NK, groups, names, resampling)
    return Source(
        images=resampling.images,
        groups=resampling.groups,
        overall=classification.overall(labels_N, answers_N, len(names), resampling),
        false_normal_rate=resampling.share(missed_N, found_N),
        classes=[result for result in occurring if result.images],
    )
