"""development, staging, canary and production, read from `environments.yaml`: what each asks of a version and gives it.

A platform is one of them (`RAYDIOLOGY_ENVIRONMENT`), or one platform has them all as stages of a version: then their
shares are weights. People write the file, so an error in it is one line. Pure.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any, get_args

import yaml

from cluster.settings import ENVIRONMENTS, Settings
from serve.canary.guardrails import GuardrailConfig
from serve.control.admission import Requirement
from serve.control.environment_limits import (
    SECTIONS,
    LimitsError,
    guardrail_config,
    read_guardrails,
    read_load_gates,
)
from serve.control.plan import steps_of

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
    """Of a rollout that names none: a name of `serve.control.plan.RAMPS`, or shares."""
    asks_for: tuple[Requirement, ...]
    """What a version must have passed before it is rolled out or deployed."""
    pipeline_load_test: bool
    """Whether the pipeline tests each new version under load."""
    faults: bool
    """Whether operators may inject faults."""
    load_rate: float
    """Requests a second of a load test: what one sends that names no rate, and the least that one counts with."""
    load_seconds: float
    """How long it sends by default."""
    guardrails: Mapping[str, Mapping[str, Any]]
    """Settings of `GuardrailConfig` that the file has, by model."""
    load_gates: Mapping[str, float]
    """Bounds of a load test that the file has, by their names in `train.evaluation.gates.Gates`."""

    def __post_init__(self) -> None:
        numbers = (self.share, self.mirror, self.load_rate, self.load_seconds)
        self._require(all(map(_is_number, numbers)), "share, mirror and load_* must be numbers")
        flags = (self.pipeline_load_test, self.faults)
        self._require(
            all(type(flag) is bool for flag in flags), "pipeline_load_test and faults are true or false"
        )
        known = get_args(Requirement)
        self._require({*self.asks_for} <= {*known}, f"asks_for takes some of {', '.join(known)}")
        for name, share in (("share", self.share), ("mirror", self.mirror)):
            self._require(0 <= share <= 1, f"{name} is {share}, set it within 0..1")
        self._require(
            0 < self.load_rate <= 5000 and 1 <= self.load_seconds <= 3600,
            "set load_rate within 0..5000 requests a second and load_seconds within 1..3600, "
            f"got {self.load_rate} and {self.load_seconds}",
        )
        try:
            steps_of(self.steps if isinstance(self.steps, str) else list(self.steps))
        except ValueError as error:
            raise EnvironmentsError(f"{self.name}: {error}") from error

    def _require(self, holds: bool, problem: str) -> None:
        if not holds:
            raise EnvironmentsError(f"{self.name}: {problem}")

    def guardrails_of(
        self, model: str, labels: tuple[str, ...], label_shares: Mapping[str, float] | None = None
    ) -> GuardrailConfig:
        """Return the guardrails of a rollout that names none.

        Args:
            label_shares: the champion's mix of labels before the rollout, where it is known.
        """
        return guardrail_config(model, self.guardrails[model], labels, label_shares)


def environments(settings: Settings) -> dict[str, Environment]:
    """Return all four, by name.

    Raises:
        EnvironmentsError: the file cannot be used.
    """
    return read(settings.environments_file or FILE)


def own(settings: Settings) -> Environment:
    """Return the one that this platform is."""
    return environments(settings)[settings.environment]


def allowing_faults(settings: Settings) -> tuple[str, ...]:
    """Return the names of the environments in which operators may inject faults."""
    return tuple(name for name, environment in environments(settings).items() if environment.faults)


@cache
def read(path: Path) -> dict[str, Environment]:
    """Read and check a file; raises EnvironmentsError."""
    try:
        values = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise EnvironmentsError(f"{path} cannot be read: {' '.join(str(error).split())[:300]}") from error
    if not isinstance(values, dict) or set(values) - set(SECTIONS) != set(ENVIRONMENTS):
        raise EnvironmentsError(
            f"{path} must have {', '.join(ENVIRONMENTS)}, may have {' and '.join(SECTIONS)}, and nothing else"
        )
    shared = {section: values.get(section) for section in SECTIONS}
    by_name = {name: _parsed(name, values[name], shared) for name in ENVIRONMENTS}
    if abs(sum(environment.share for environment in by_name.values()) - 1) > 1e-9:
        raise EnvironmentsError(
            f"{path}: the shares must add up to 1, production's being what the champion keeps; they are "
            + ", ".join(f"{name} {environment.share:g}" for name, environment in by_name.items())
        )
    return by_name


def _parsed(name: str, values: Any, shared: Mapping[str, Any]) -> Environment:
    required = {field.name for field in fields(Environment)} - {"name", *SECTIONS}
    given = set(values) - set(SECTIONS) if isinstance(values, dict) else set()
    if not isinstance(values, dict) or given != required:
        raise EnvironmentsError(
            f"{name}: it lacks {', '.join(sorted(required - given)) or 'nothing'} and has "
            f"{', '.join(sorted(map(str, given - required))) or 'nothing'} too much"
        )
    lists: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
    }
    if not isinstance(lists["asks_for"], tuple) or not isinstance(lists["steps"], str | tuple):
        raise EnvironmentsError(f"{name}: asks_for is a list, and steps is a name or a list of shares")
    try:
        lists["guardrails"] = read_guardrails(shared["guardrails"], values.get("guardrails"))
        lists["load_gates"] = read_load_gates(shared["load_gates"], values.get("load_gates"))
    except LimitsError as error:
        raise EnvironmentsError(f"{name}: {error}") from error
    return Environment(name=name, **lists)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
