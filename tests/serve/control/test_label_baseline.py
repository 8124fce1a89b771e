"""The shares of labels before a rollout."""

from types import SimpleNamespace
from typing import Any

from serve.control.label_baseline import LEAST_PATIENTS, label_mix


def mix(counts: dict[str, int], **options: Any) -> dict[str, float] | None:
    rows = [{"label": label, "patients": patients} for label, patients in counts.items()]
    connection: Any = SimpleNamespace(execute=lambda *_: SimpleNamespace(fetchall=lambda: rows))
    return label_mix(connection, model="xray-vit", version="1", labels=("a", "b", "c"), **options)


def test_each_label_has_its_share_and_a_foreign_one_does_not_count() -> None:
    assert mix({"a": 30, "b": 10, "other": 99}, least_patients=40) == {"a": 0.75, "b": 0.25, "c": 0.0}


def test_few_patients_are_no_mix() -> None:
    assert mix({"a": LEAST_PATIENTS - 1, "other": 99}) is None
    assert mix({"a": LEAST_PATIENTS}) == {"a": 1.0, "b": 0.0, "c": 0.0}
