"""Who is let in, and the one line for who is not."""

from typing import Any

import pytest

from serve.control.admission import AdmissionError, Requirement, admit

PASSED = {"verdict": "pass", "load_test": "pass", "load_test_rate": "10"}
BOTH: tuple[Requirement, ...] = ("evaluation", "load_test")


def ask(
    tags: dict[str, str], asks_for: tuple[Requirement, ...] = BOTH, model: str = "xray-vit", **other: Any
) -> None:
    admit(model, "7", tags, environment="production", asks_for=asks_for, **{"load_rate": 10.0, **other})


def test_a_version_that_passed_both_is_let_in() -> None:
    ask(PASSED)
    ask(PASSED | {"load_test_rate": "50"})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"verdict": "fail"}, "has not passed its gates; run `python -m jobs.evaluate`"),
        (
            {"load_test": None},
            "production asks for a load test of xray-vit version 7, and there was none: run ",
        ),
        (
            {"load_test": "fail", "load_test_why": "P99 900 ms"},
            r"and it failed \(P99 900 ms\): run `python -m jobs.load_test --version 7 --rate 10`",
        ),
        ({"load_test_rate": "5"}, "at 10 requests a second, and it was at 5: run "),
    ],
)
def test_who_is_not_let_in_is_told_the_command(change: dict[str, str | None], said: str) -> None:
    tags = {name: value for name, value in {**PASSED, **change}.items() if value is not None}
    with pytest.raises(AdmissionError, match=said) as refused:
        ask(tags)
    assert "\n" not in str(refused.value)
    assert "python -m jobs." in str(refused.value)


def test_development_and_staging_ask_for_no_load_test() -> None:
    ask({"verdict": "pass"}, asks_for=("evaluation",))


def test_the_language_model_is_judged_where_it_is_taught() -> None:
    ask({}, model="xray-llm")
