"""A small drawn data set: its settings, its subjects and its rows."""

import csv
from pathlib import Path

from data.synthetic.generator import (
    Subject,
    SyntheticConfig,
    subjects,
)


def one_of(config: SyntheticConfig, label: str, sex: str | None = None) -> Subject:
    return next(
        one for one in subjects(config) if one.patient.label == label and sex in (None, one.patient.sex)
    )


SMALL = SyntheticConfig(images=40, side=64)


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "manifest.csv").open(newline="") as file:
        return list(csv.DictReader(file))
