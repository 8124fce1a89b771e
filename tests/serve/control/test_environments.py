"""The four environments as they are shipped, and what is said of a file that cannot be."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.settings import ENVIRONMENTS
from serve.control.environments import FILE, EnvironmentsError, read
from serve.control.plan import steps_of
from train.evaluation.gates import Gates


def file_with(folder: Path, change: dict[str, Any], name: str = "canary") -> Path:
    values = yaml.safe_load(FILE.read_text())
    values[name] = {key: one for key, one in {**values[name], **change}.items() if one is not None}
    path = folder / "environments.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def test_the_shipped_ones_are_those_that_were_decided() -> None:
    found = read(FILE)
    assert tuple(found) == ENVIRONMENTS
    assert [one.share for one in found.values()] == [0.0, 0.0, 0.1, 0.9]
    assert [name for name, one in found.items() if one.faults] == ["development", "staging"]
    assert [name for name, one in found.items() if "load_test" in one.asks_for] == ["canary", "production"]
    assert [name for name, one in found.items() if one.pipeline_load_test] == ["staging"]
    assert all("evaluation" in one.asks_for for one in found.values())


def test_the_gates_name_these_too() -> None:
    assert set(Gates().block) == set(ENVIRONMENTS)


def test_the_usual_steps_go_through_the_canary_s_share() -> None:
    for one in read(FILE).values():
        assert isinstance(one.steps, str)
        assert read(FILE)["canary"].share in [step.share for step in steps_of(one.steps)]


def test_another_site_has_other_numbers(tmp_path: Path) -> None:
    path = file_with(tmp_path, {"share": 0.05, "steps": [0, 0.05, 1], "load_rate": 200})
    path = file_with_more(path, "production", share=0.95)
    found = read(path)["canary"]
    assert (found.share, found.steps, found.load_rate) == (0.05, (0, 0.05, 1), 200)


def file_with_more(path: Path, name: str, **change: Any) -> Path:
    values = yaml.safe_load(path.read_text())
    values[name] |= change
    other = path.with_name("other.yaml")
    other.write_text(yaml.safe_dump(values))
    return other


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"share": 10}, r"canary: share is 10, set it within 0\.\.1"),
        ({"share": 0.2}, "shares must add up to 1.*canary 0.2"),
        ({"share": "10 %"}, "canary: share, mirror and load_. must be numbers"),
        ({"mirror": -0.1}, "canary: mirror is -0.1"),
        ({"steps": "quickly"}, "canary: there are no steps 'quickly'; there are canary"),
        ({"steps": [2]}, r"canary: .*within 0\.\.1"),
        ({"steps": 3}, "canary: asks_for is a list, and steps is a name or a list"),
        ({"asks_for": ["luck"]}, "canary: asks_for takes some of evaluation, load_test"),
        ({"asks_for": "load_test"}, "asks_for is a list"),
        ({"faults": "no"}, "canary: .*true or false"),
        ({"load_rate": 0}, "canary: set load_rate within"),
        ({"load_seconds": 9_999}, "canary: set load_rate within"),
        ({"load_rate": None}, "canary: it lacks load_rate"),
        ({"colour": "blue"}, "canary: it .*has colour too much"),
    ],
)
def test_a_wrong_field_is_told_in_one_line(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    with pytest.raises(EnvironmentsError, match=said):
        read(file_with(tmp_path, change))


def test_a_file_without_one_of_the_four_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "environments.yaml"
    path.write_text("staging: {}\n")
    with pytest.raises(EnvironmentsError, match="must have development, staging, canary, production"):
        read(path)
    with pytest.raises(EnvironmentsError, match="cannot be read"):
        read(tmp_path / "none.yaml")
