"""Limits of guardrails and load gates in environments.yaml."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from serve.canary.guardrails import GuardrailConfig, explainer_guardrails
from serve.control.environments import FILE, EnvironmentsError, read
from train.evaluation.gates import Gates

LABELS = ("a", "b")


def test_the_shipped_limits_are_the_defaults() -> None:
    for environment in read(FILE).values():
        assert environment.guardrails_of("xray-vit", LABELS) == GuardrailConfig(labels=LABELS)
        assert environment.guardrails_of("xray-llm", LABELS) == explainer_guardrails(LABELS)
        gates = {name: value for name, value in vars(Gates()).items() if name.startswith("load_")}
        assert environment.load_gates == gates
    mix = {"a": 0.7, "b": 0.3}
    assert read(FILE)["canary"].guardrails_of("xray-vit", LABELS, mix).label_shares == mix


def test_a_file_without_limits_has_the_defaults(tmp_path: Path) -> None:
    values = yaml.safe_load(FILE.read_text())
    del values["guardrails"], values["load_gates"]
    path = tmp_path / "environments.yaml"
    path.write_text(yaml.safe_dump(values))
    environment = read(path)["production"]
    assert environment.guardrails_of("xray-vit", LABELS) == GuardrailConfig(labels=LABELS)
    assert environment.load_gates == {}


def limits(folder: Path, where: str | None, change: dict[str, Any]) -> Path:
    """The shipped file with other limits at the top, or in an environment."""
    values = yaml.safe_load(FILE.read_text())
    target = values if where is None else values[where]
    target |= change
    path = folder / "environments.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def test_an_environment_s_limits_count_before_those_of_all(tmp_path: Path) -> None:
    own = {"guardrails": {"xray-vit": {"promote_p99_ms": 200, "budget": {"errors": 0.02}}}}
    path = limits(tmp_path, "production", {**own, "load_gates": {"load_p99_ms": 250}})
    canary, production = read(path)["canary"], read(path)["production"]
    assert canary.guardrails_of("xray-vit", LABELS) == GuardrailConfig(labels=LABELS)
    guardrails = production.guardrails_of("xray-vit", LABELS)
    assert (guardrails.promote_p99_ms, guardrails.roll_back_p99_ms) == (200, 500)
    assert (guardrails.budget["errors"], guardrails.budget["drift"]) == (0.02, 0.004)
    assert production.guardrails_of("xray-llm", LABELS) == explainer_guardrails(LABELS)
    assert (production.load_gates["load_p99_ms"], production.load_gates["load_errors"]) == (250, 0.001)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"guardrails": {"xray": {}}}, "guardrails has no xray; there are xray-vit, xray-llm"),
        ({"guardrails": 3}, "guardrails must have names and values"),
        (
            {"guardrails": {"xray-vit": {"p99_ms": 3}}},
            "guardrails.xray-vit has no p99_ms; there are promote_p99_ms",
        ),
        (
            {"guardrails": {"xray-vit": {"promote_p99_ms": "3"}}},
            "xray-vit.promote_p99_ms must be a number, got '3'",
        ),
        (
            {"guardrails": {"xray-vit": {"promote_p99_ms": 900}}},
            "xray-vit: promote_p99_ms must be .* at most roll_",
        ),
        ({"guardrails": {"xray-vit": {"budget": {"luck": 1}}}}, "budget has no luck; there are errors, "),
        (
            {"guardrails": {"xray-vit": {"budget": {"errors": 0.04}}}},
            r"xray-vit: the budgets add up to 0\.066",
        ),
        (
            {"guardrails": {"xray-vit": {"margins": {"errors": True}}}},
            "margins.errors must be a number, got True",
        ),
        (
            {"guardrails": {"xray-llm": {"margins": {"errors": 2}}}},
            "xray-llm: the margin of errors is not within",
        ),
        ({"load_gates": {"load_p99": 3}}, "load_gates has no load_p99; there are load_p99_ms, "),
        ({"load_gates": {"load_p99_ms": 0}}, "load_gates.load_p99_ms must be above 0, got 0"),
        ({"load_gates": {"load_errors": 5}}, r"load_gates.load_errors must be within 0\.\.1, got 5"),
        ({"load_gates": {"load_requests": 1.5}}, "load_requests must be a whole number"),
        ({"load_gates": {"load_throughput": None}}, "load_throughput must be a number, got None"),
    ],
)
def test_a_wrong_limit_is_told_in_one_line(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    for where in (None, "canary"):
        with pytest.raises(EnvironmentsError, match=message) as caught:
            read(limits(tmp_path, where, change))
        assert "\n" not in str(caught.value)
        assert str(caught.value).startswith("canary: " if where else "development: ")
