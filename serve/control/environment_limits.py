"""The limits that `environments.yaml` sets: guardrails of rollouts and gates of a load test, checked before use. Pure.

Both sections stand at the top of the file, for all environments, and in an environment, where only what differs is
named. What is named nowhere has the default of the code (`serve.canary.guardrails`, `train.evaluation.gates.Gates`).
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from serve.canary.guardrails import GuardrailConfig, explainer_guardrails

SECTIONS = ("guardrails", "load_gates")
DEFAULTS: Mapping[str, Callable[[tuple[str, ...]], GuardrailConfig]] = {
    "xray-vit": lambda labels: GuardrailConfig(labels=labels),
    "xray-llm": explainer_guardrails,
}
"""Guardrails by model, as functions of the labels."""
BOUNDS = ("promote_p99_ms", "roll_back_p99_ms", "error_bound", "disagreement_bound")
TABLES = ("budget", "margins")
LOAD_GATES: Mapping[str, tuple[str, Callable[[float], bool]]] = {
    "load_p99_ms": ("above 0", lambda value: value > 0),
    "load_errors": ("within 0..1", lambda value: 0 <= value <= 1),
    "load_throughput": ("within 0..1", lambda value: 0 <= value <= 1),
    "load_requests": ("a whole number of at least 1", lambda value: value >= 1 and value == int(value)),
}
"""Names as in `train.evaluation.gates.Gates`, and what each may be."""
ANY_LABELS = ("a", "b")
"""Labels for checking settings, which do not depend on them."""


class LimitsError(ValueError):
    """A setting with a wrong name, type or range; one line that names it."""


def read_guardrails(shared: object, own: object) -> dict[str, dict[str, Any]]:
    """Return the settings of `GuardrailConfig` by model.

    Args:
        shared: the section at the top of the file, None where there is none.
        own: the section of the environment, which counts before it.
    Raises:
        LimitsError: a name, type or range is wrong.
    """
    models: dict[str, dict[str, Any]] = {}
    sections = [_mapping("guardrails", section, DEFAULTS) for section in (shared, own)]
    for model, default in DEFAULTS.items():
        base = default(ANY_LABELS)
        settings: dict[str, Any] = {}
        for section in sections:
            given = _mapping(f"guardrails.{model}", section.get(model), (*BOUNDS, *TABLES))
            for name, value in given.items():
                where = f"guardrails.{model}.{name}"
                if name in BOUNDS:
                    settings[name] = _number(where, value)
                    continue
                table = settings.get(name, getattr(base, name))
                entries = _mapping(where, value, table)
                settings[name] = table | {key: _number(f"{where}.{key}", n) for key, n in entries.items()}
        try:
            replace(base, **settings)
        except ValueError as error:
            raise LimitsError(f"guardrails.{model}: {error}") from error
        models[model] = settings
    return models


def read_load_gates(shared: object, own: object) -> dict[str, float]:
    """Return the bounds of a load test that the file sets, by their names in `train.evaluation.gates.Gates`.

    Args:
        shared, own: as in `read_guardrails`.
    Raises:
        LimitsError: a name, type or range is wrong.
    """
    gates: dict[str, float] = {}
    for section in (shared, own):
        for name, value in _mapping("load_gates", section, LOAD_GATES).items():
            number, (allowed, is_allowed) = _number(f"load_gates.{name}", value), LOAD_GATES[name]
            if not is_allowed(number):
                raise LimitsError(f"load_gates.{name} must be {allowed}, got {value}")
            gates[name] = int(number) if name == "load_requests" else number
    return gates


def guardrail_config(
    model: str,
    settings: Mapping[str, Any],
    labels: tuple[str, ...],
    label_shares: Mapping[str, float] | None = None,
) -> GuardrailConfig:
    """Return the guardrails of a rollout of a model under the settings of `read_guardrails`."""
    return replace(DEFAULTS[model](labels), **settings, label_shares=label_shares)


def _mapping(where: str, value: object, names: Any) -> Mapping[str, Any]:
    """Return a section that may be absent, all of whose names are known."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise LimitsError(f"{where} must have names and values, some of {', '.join(names)}")
    if unknown := [str(name) for name in value if name not in names]:
        raise LimitsError(f"{where} has no {', '.join(unknown)}; there are {', '.join(names)}")
    return value


def _number(where: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise LimitsError(f"{where} must be a number, got {value!r}")
    return float(value)
