"""development, staging, canary and production, read from `environments.yaml`: what each asks of a version and gives it.

A platform is one of them (`RAYDIOLOGY_ENVIRONMENT`), or one platform has them all as stages of a version: then their
shares are weights. The file is written by people, so what is wrong with it is told in one line. Pure.
"""

from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any, get_args

import yaml

from cluster.settings import ENVIRONMENTS, Settings
from serve.admission import Requirement
from serve.rollout import steps_of

FILE = Path(__file__).with_name("environments.yaml")


class EnvironmentsError(ValueError):
    """The file cannot be used; one line that names the environment and what is wrong with it."""


@dataclass(frozen=True, kw_only=True)
class Environment:
    name: str
    """One of `cluster.settings.ENVIRONMENTS`."""
    share: float
    """Of the traffic, what a version is given when it enters, 0 to 1; production's is what the champion keeps beside a
    canary. The four add up to 1."""
    mirror: float
    """Of the other versions' requests, the share that a version with a share of 0 is shown, without answering."""
    steps: str | tuple[float, ...]
    """Of a rollout that names none: a name of `serve.rollout.RAMPS`, or shares."""
    asks_for: tuple[Requirement, ...]
    """What a version must have passed before it is rolled out or deployed."""
    pipeline_load_test: bool
    """Whether the pipeline tests each new version under load."""
    faults: bool
    """Whether operators may inject faults."""
    load_rate: float
    """Requests a second of a load test: what one sends that names no rate, and the least that one counts with."""
    load_seconds: float
    """How long it sends, if nobody says otherwise."""

    def __post_init__(self) -> None:
        known = get_args(Requirement)
        numbers = (self.share, self.mirror, self.load_rate, self.load_seconds)
        wrong = [
            None if all(_is_number(one) for one in numbers) else "share, mirror and load_* must be numbers",
            None
            if all(type(one) is bool for one in (self.pipeline_load_test, self.faults))
            else "true or false",
            None if set(self.asks_for) <= set(known) else f"asks_for takes some of {', '.join(known)}",
        ]
        if problems := [one for one in wrong if one]:
            raise EnvironmentsError(f"{self.name}: {'; '.join(problems)}")
        for name in ("share", "mirror"):
            if not 0 <= getattr(self, name) <= 1:
                raise EnvironmentsError(f"{self.name}: {name} is {getattr(self, name)}, set it within 0..1")
        if not 0 < self.load_rate <= 5000 or not 1 <= self.load_seconds <= 3600:
            raise EnvironmentsError(
                f"{self.name}: set load_rate within 0..5000 requests a second and load_seconds within 1..3600, "
                f"got {self.load_rate} and {self.load_seconds}"
            )
        try:
            steps_of(self.steps if isinstance(self.steps, str) else list(self.steps))
        except ValueError as error:
            raise EnvironmentsError(f"{self.name}: {error}") from error


def environments(settings: Settings) -> dict[str, Environment]:
    """All four, by name.

    Raises:
        EnvironmentsError: the file cannot be used.
    """
    return read(settings.environments_file or FILE)


def own(settings: Settings) -> Environment:
    """The one that this platform is."""
    return environments(settings)[settings.environment]


def allowing_faults(settings: Settings) -> tuple[str, ...]:
    """Names of the environments in which operators may inject faults."""
    return tuple(name for name, one in environments(settings).items() if one.faults)


@cache
def read(path: Path) -> dict[str, Environment]:
    """Raises EnvironmentsError."""
    try:
        values = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise EnvironmentsError(f"{path} cannot be read: {' '.join(str(error).split())[:300]}") from error
    if not isinstance(values, dict) or set(values) != set(ENVIRONMENTS):
        raise EnvironmentsError(f"{path} must have {', '.join(ENVIRONMENTS)}, and nothing else")
    found = {name: _parsed(name, values[name]) for name in ENVIRONMENTS}
    if abs(sum(one.share for one in found.values()) - 1) > 1e-9:
        raise EnvironmentsError(
            f"{path}: the shares must add up to 1, production's being what the champion keeps; they are "
            + ", ".join(f"{name} {one.share:g}" for name, one in found.items())
        )
    return found


def _parsed(name: str, values: Any) -> Environment:
    wanted = {one.name for one in fields(Environment)} - {"name"}
    if not isinstance(values, dict) or set(values) != wanted:
        given = set(values) if isinstance(values, dict) else set()
        raise EnvironmentsError(
            f"{name}: it lacks {', '.join(sorted(wanted - given)) or 'nothing'} and has "
            f"{', '.join(sorted(map(str, given - wanted))) or 'nothing'} too much"
        )
    lists: dict[str, Any] = {key: tuple(one) if isinstance(one, list) else one for key, one in values.items()}
    if not isinstance(lists["asks_for"], tuple) or not isinstance(lists["steps"], str | tuple):
        raise EnvironmentsError(f"{name}: asks_for is a list, and steps is a name or a list of shares")
    return Environment(name=name, **lists)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
