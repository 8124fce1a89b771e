"""What `jobs.tune` is told on the command line, and what it refuses before it asks any service."""

from pathlib import Path

import pytest

from jobs import tune
from jobs.recipes import recipe
from jobs.runtime import entry
from tune.config import SweepConfig
from tune.space import SpaceError


def parse(*argv: str) -> tune.Arguments:
    return entry.parse(tune.Arguments, "tune", argv, lambda name: {"train": recipe(name).train})


def test_the_sweep_s_settings_stand_at_the_top_and_the_recipe_s_below() -> None:
    told = parse(
        "--recipe", "xrays", "--trials", "9", "--budget_cpu_minutes", "30", "--scheduler", "pbt", "--fresh"
    )
    assert told.sweep == SweepConfig(trials=9, budget_cpu_minutes=30, scheduler="pbt")
    assert told.train == recipe("xrays").train
    assert told.fresh


@pytest.mark.parametrize("budget", ["0", "-5"])
def test_a_budget_that_is_none_is_refused(budget: str) -> None:
    with pytest.raises(entry.ArgumentsError, match="budget_cpu_minutes must be a positive number"):
        parse("--budget_cpu_minutes", budget)


def test_a_mistake_in_the_space_is_told_before_any_service_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    file = tmp_path / "space.yaml"
    file.write_text("optim.lerning_rate: {low: 1e-4, high: 1e-2}\n")
    with pytest.raises(SpaceError, match=r"did you mean optim\.learning_rate"):
        tune.work(parse("--space", str(file)))
    with pytest.raises(SpaceError, match="cannot be read: No such file"):
        tune.work(parse("--space", str(tmp_path / "none.yaml")))
