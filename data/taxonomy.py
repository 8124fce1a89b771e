"""The classes, read from `taxonomy.yaml`: the one list that every consumer shares. Ten of them; a site may have others.

The file is edited by hand, so an error in it is one line that names the class. The checks are written here, since
pydantic words several lines and takes `yes` for true. Knows neither Ray nor torch.
"""

from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml

TAXONOMY_PATH = Path(__file__).with_name("taxonomy.yaml")
REGIONS = ("chest", "limb")


class TaxonomyError(ValueError):
    """The file cannot be used; one line that names the class and what is wrong with it."""


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
    required: bool = False
    """True when too few test images of it halt the pipeline (`train.evaluation.gates`)."""

    def __post_init__(self) -> None:
        thresholds = [value for value in (self.soon_above, self.urgent_above) if value is not None]
        wrong = [
            None if isinstance(self.name, str) and self.name else "its name is no text",
            None if isinstance(self.meaning, str) and self.meaning else "its meaning is no text",
            None if self.region in REGIONS else f"its region is none of {', '.join(REGIONS)}",
            None if isinstance(self.finding, bool) else "finding is neither true nor false",
            None if isinstance(self.required, bool) else "required is neither true nor false",
            None if all(_is_share(item) for item in thresholds) else "a threshold is no number within 0..1",
            None if all(isinstance(item, str) for item in self.also_called) else "also_called holds no text",
        ]
        if problems := [item for item in wrong if item]:
            raise TaxonomyError(f"the class {self.name!r}: {'; '.join(problems)}")


@dataclass(frozen=True, kw_only=True)
class Taxonomy:
    classes: tuple[Class, ...]
    synonyms: dict[str, str]

    def __post_init__(self) -> None:
        if not self.classes:
            raise TaxonomyError("it has no class")
        if twice := sorted({name for name in self.names if self.names.count(name) > 1}):
            raise TaxonomyError(f"it names {', '.join(twice)} twice")
        if unknown := sorted(set(map(str, self.synonyms.values())) - set(self.names)):
            raise TaxonomyError(f"it has synonyms for classes that it lacks: {', '.join(unknown)}")

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(entry.name for entry in self.classes)

    def __getitem__(self, name: str) -> Class:
        return self.classes[self.names.index(name)]

    def translate(self, label: str) -> str | None:
        """Return the class that a manifest's label means, None when it means none of ours."""
        label = label.strip()
        label = self.synonyms.get(label, label)
        return label if label in self.names else None


@cache
def taxonomy() -> Taxonomy:
    """Return the project's taxonomy; the order of `classes` is the order of the model's outputs."""
    return load(TAXONOMY_PATH)


def load(path: Path) -> Taxonomy:
    """Read a taxonomy.

    Raises:
        TaxonomyError: the file is missing, no YAML, or not as it should be.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
        classes = tuple(_class(number, entry) for number, entry in enumerate(_listed(raw), start=1))
        synonyms = raw.get("synonyms") or {}
        if not isinstance(synonyms, dict):
            raise TaxonomyError("`synonyms` is no list of `other name: class`")
        return Taxonomy(classes=classes, synonyms={str(name): str(meant) for name, meant in synonyms.items()})
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise TaxonomyError(f"{path} cannot be read as YAML: {' '.join(str(error).split())[:200]}") from error
    except TaxonomyError as error:
        raise TaxonomyError(f"{path}: {error}") from error


def _listed(raw: Any) -> list[Any]:
    if not isinstance(raw, dict) or not isinstance(raw.get("classes"), list):
        raise TaxonomyError("it has no list `classes`")
    return raw["classes"]


def _class(number: int, entry: Any) -> Class:
    known = {field.name for field in fields(Class)}
    needed = known - {"also_called", "required"}
    if not isinstance(entry, dict) or needed - set(entry) or set(entry) - known:
        there = set(entry) if isinstance(entry, dict) else set()
        wrong = [f"lacks {name}" for name in sorted(needed - there)]
        wrong += [f"has an unknown {name}" for name in sorted(map(str, there - known))]
        raise TaxonomyError(f"class {number} of the list {', '.join(wrong)}")
    return Class(**{**entry, "also_called": tuple(entry.get("also_called") or ())})


def _is_share(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1
