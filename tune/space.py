"""What a sweep varies: names of training settings, each with a range or with choices, as YAML has them.

`optim.learning_rate: {low: 3.0e-4, high: 1.0e-2, log: true}` or `batch_size: {choices: [16, 32]}`. Everything that
could be wrong with a space is found here, before anything runs. Knows neither Ray nor torch nor Optuna.
"""

import difflib
import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from train.config import MACHINE_FIELDS, TrainConfig
from train.config_checks import TrainConfigError

FIXED = {
    "epochs": "all trials have the same, so that they can be compared",
    "seed": "the sweep has one, given by --seed",
    "model.kwargs": "it is a dictionary: give it with --train.model.kwargs, the same for all trials",
    "model.start": "all trials begin the same way",
}
"""Settings that no space may have, and why."""
WITHIN_A_RUN = ("optim.", "augment.", "label_smoothing", "class_balance")
"""Beginnings of names that may change while a run goes on: no tensor and no position depends on them."""
MOST_WHOLE = 512
"""Up to so many values of a range of whole numbers are each tried before anything runs."""

Settings = dict[str, Any]
"""One trial's values, by dotted name."""


class SpaceError(ValueError):
    """The space cannot be searched; the message names the setting and says why."""


@dataclass(frozen=True, kw_only=True)
class Range:
    low: float
    high: float
    log: bool = False
    """Whether orders of magnitude are equally likely, not values."""
    whole: bool = False
    """Whole numbers only."""

    @property
    def ends(self) -> list[Any]:
        return [int(self.low), int(self.high)] if self.whole else [self.low, self.high]

    def has(self, value: Any) -> bool:
        return isinstance(value, int | float) and self.low <= value <= self.high

    def clamped(self, value: Any) -> Any:
        nearest = min(max(value, self.low), self.high)
        return round(nearest) if self.whole else float(nearest)


@dataclass(frozen=True, kw_only=True)
class Choice:
    choices: tuple[Any, ...]

    @property
    def ends(self) -> list[Any]:
        return list(self.choices)

    def has(self, value: Any) -> bool:
        return value in self.choices

    def clamped(self, value: Any) -> Any:
        return value if value in self.choices else self.choices[0]


Dimension = Range | Choice
Space = dict[str, Dimension]

DEFAULT: dict[str, dict[str, Any]] = {
    "optim.learning_rate": {"low": 2e-4, "high": 1e-2, "log": True},
    "optim.weight_decay": {"low": 5e-3, "high": 0.5, "log": True},
    "model.drop_path_rate": {"low": 0.0, "high": 0.3},
    "label_smoothing": {"low": 0.0, "high": 0.2},
    "class_balance": {"low": 0.0, "high": 1.0},
    "augment.rotation_degrees": {"low": 0.0, "high": 15.0},
    "augment.zoom": {"low": 0.0, "high": 0.2},
    "augment.brightness": {"low": 0.0, "high": 0.5},
}
"""What matters for a ViT from few images: rate, regularisation, balance, augmentation."""


def read(path: Path) -> Space:
    """Read the space of a YAML file.

    Raises:
        SpaceError: there is no such file, it is no YAML, or the space is impossible.
    """
    try:
        described = yaml.safe_load(path.read_text())
    except OSError as error:
        raise SpaceError(f"the space {path} cannot be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise SpaceError(f"the space {path} is no YAML: {' '.join(str(error).split())}") from error
    return parse(described)


def parse(described: Any) -> Space:
    """Make a space from plain values, each name and range checked on its own.

    Raises:
        SpaceError: a name is no setting, or a range or choice is impossible.
    """
    if not isinstance(described, Mapping) or not described:
        raise SpaceError(
            "a space has at least one line such as `optim.learning_rate: {low: 1e-4, high: 1e-2}`"
        )
    return {str(name): _dimension(str(name), given) for name, given in described.items()}


def described(space: Space) -> dict[str, dict[str, Any]]:
    """Invert `parse`."""
    return {name: _plain(dimension) for name, dimension in space.items()}


def _plain(dimension: Dimension) -> dict[str, Any]:
    if isinstance(dimension, Choice):
        return {"choices": list(dimension.choices)}
    low, high = dimension.ends
    return {"low": low, "high": high} | ({"log": True} if dimension.log else {})


def searchable() -> dict[str, Any]:
    """Return the settings that a space may have, with their default values."""
    return {
        name: value
        for name, value in _leaves(TrainConfig().as_dict())
        if name not in FIXED and name not in MACHINE_FIELDS
    }


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping) and prefix + name != "model.kwargs":
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _dimension(name: str, given: Any) -> Dimension:
    default = _default_of(name)
    if isinstance(given, Mapping) and given.keys() == {"choices"}:
        return _choice(name, given["choices"], default)
    if not isinstance(given, Mapping) or not {"low", "high"} <= given.keys() <= {"low", "high", "log"}:
        raise SpaceError(
            f"space: {name} takes {{low, high}}, {{low, high, log: true}} or {{choices: [...]}}, got {given}"
        )
    if isinstance(default, bool | str):
        raise SpaceError(f"space: {name} is no number: give it {{choices: [...]}}")
    return _range(name, given, whole=isinstance(default, int))


def _default_of(name: str) -> Any:
    known = searchable()
    if name in known:
        return known[name]
    if name in FIXED:
        raise SpaceError(f"space: {name} cannot be searched: {FIXED[name]}")
    if name in MACHINE_FIELDS:
        raise SpaceError(
            f"space: {name} cannot be searched: it says how much machine is used, not what is learned"
        )
    near = difflib.get_close_matches(name, known, 1)
    raise SpaceError(f"space: there is no setting {name}" + (f": did you mean {near[0]}?" if near else ""))


def _choice(name: str, choices: Any, default: Any) -> Choice:
    if not isinstance(choices, list | tuple) or not choices:
        raise SpaceError(f"space: the choices of {name} are a list with at least one value, got {choices}")
    kinds = (int, float) if isinstance(default, float) else type(default)
    wrong = [
        choice
        for choice in choices
        if not isinstance(choice, kinds) or isinstance(choice, bool) != isinstance(default, bool)
    ]
    if wrong:
        raise SpaceError(f"space: {wrong[0]!r} is no value of {name}, whose default is {default!r}")
    return Choice(
        choices=tuple(float(choice) if isinstance(default, float) else choice for choice in choices)
    )


def _range(name: str, given: Mapping[str, Any], *, whole: bool) -> Range:
    low, high = (_number(name, given[end], whole=whole) for end in ("low", "high"))
    log = given.get("log", False)
    if not isinstance(log, bool):
        raise SpaceError(f"space: log of {name} is true or false, got {log!r}")
    if not low < high:
        raise SpaceError(f"space: the low of {name} has to be below its high, got {low:g} and {high:g}")
    if log and low <= 0:
        raise SpaceError(f"space: {name} is logarithmic, so its low has to be positive, got {low:g}")
    return Range(low=low, high=high, log=log, whole=whole)


def _number(name: str, value: Any, *, whole: bool) -> float:
    try:
        number = float(value)  # YAML takes 1e-3 for a string
    except (TypeError, ValueError) as error:
        raise SpaceError(f"space: {name} takes numbers, got {value!r}") from error
    if isinstance(value, bool) or not math.isfinite(number) or (whole and number != int(number)):
        raise SpaceError(f"space: {name} takes {'whole ' if whole else ''}numbers, got {value!r}")
    return number


def applied(base: TrainConfig, settings: Settings) -> TrainConfig:
    """Return the training configuration of one trial.

    Its numbers are of the kinds that a file's are when it is read (3 where a float belongs is 3.0), so that the
    winner's file has the fingerprint of the trial.

    Raises:
        TrainConfigError: the values do not go together.
    """
    values, defaults = base.as_dict(), dict(_leaves(TrainConfig().as_dict()))
    for name, value in [*_leaves(base.as_dict()), *settings.items()]:
        *parts, leaf = name.split(".")
        at = values
        for part in parts:
            at = at[part]
        at[leaf] = float(value) if isinstance(defaults[name], float) else value
    return TrainConfig.from_dict(values)


def of(base: TrainConfig, space: Space) -> Settings:
    """Return the values that a configuration itself has for a space's settings."""
    values = dict(_leaves(base.as_dict()))
    return {name: values[name] for name in space}


def check(base: TrainConfig, space: Space) -> None:
    """Construct the trials at the corners: each value at the end of its range, alone and with each of any other.

    Raises:
        SpaceError: one of them cannot be; names the values.
    """
    for settings in _corners(space):
        try:
            applied(base, settings)
        except TrainConfigError as error:
            values = ", ".join(f"{name} = {value}" for name, value in settings.items())
            raise SpaceError(f"space: {values} cannot be trained: {error}") from error


def _corners(space: Space) -> Iterator[Settings]:
    for name, dimension in space.items():
        yield from ({name: value} for value in _values(dimension))
    for (name, dimension), (other, another) in itertools.combinations(space.items(), 2):
        yield from ({name: a, other: b} for a in dimension.ends for b in another.ends)


def _values(dimension: Dimension) -> list[Any]:
    if isinstance(dimension, Range) and dimension.whole and dimension.high - dimension.low < MOST_WHOLE:
        return list(range(int(dimension.low), int(dimension.high) + 1))
    return dimension.ends


def within_a_run(space: Space) -> Space:
    """Return the part of a space that may change while a run goes on."""
    return {name: dimension for name, dimension in space.items() if name.startswith(WITHIN_A_RUN)}
