"""The ten classes, read from `taxonomy.yaml`: the one list that every consumer shares.

Knows neither Ray nor torch.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import yaml

TAXONOMY_PATH = Path(__file__).with_name("taxonomy.yaml")


@dataclass(frozen=True, kw_only=True)
class Class:
    """One diagnosis."""

    name: str
    """Identifier in tables, answers and metrics."""
    meaning: str
    """The finding in plain words, as a noun phrase that follows "signs of" or "shows"."""
    region: Literal["chest", "limb"]
    finding: bool
    """False for the classes that say that nothing is wrong."""
    soon_above: float | None
    """Calibrated probability from which triage is at least `soon`."""
    urgent_above: float | None
    """Calibrated probability from which triage is `urgent`."""
    also_called: tuple[str, ...] = ()
    """Other words for the same thing that an explanation may use; a non-finding's begin with "no "."""


@dataclass(frozen=True, kw_only=True)
class Taxonomy:
    classes: tuple[Class, ...]
    synonyms: dict[str, str]

    def __post_init__(self) -> None:
        if len(set(self.names)) != len(self.names):
            raise ValueError(f"{TAXONOMY_PATH.name} names a class twice: {self.names}")
        if unknown := set(self.synonyms.values()) - set(self.names):
            raise ValueError(
                f"{TAXONOMY_PATH.name} has synonyms for classes that it lacks: {sorted(unknown)}"
            )

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(one.name for one in self.classes)

    def __getitem__(self, name: str) -> Class:
        return self.classes[self.names.index(name)]

    def translate(self, label: str) -> str | None:
        """The class that a manifest's label means, None when it means none of ours."""
        label = label.strip()
        label = self.synonyms.get(label, label)
        return label if label in self.names else None


@cache
def taxonomy() -> Taxonomy:
    """The project's taxonomy; the order of `classes` is the order of the model's outputs."""
    raw = yaml.safe_load(TAXONOMY_PATH.read_text())
    classes = tuple(
        Class(**{**one, "also_called": tuple(one.get("also_called", ()))}) for one in raw["classes"]
    )
    return Taxonomy(classes=classes, synonyms=raw["synonyms"])
