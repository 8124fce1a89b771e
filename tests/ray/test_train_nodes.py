"""Two nodes of one CPU each: one dies, another one comes, and that one is announced to be taken away."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.timeout(1500)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    other = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    ended = subprocess.run(
        [sys.executable, "-m", "tests.ray.train_on_nodes", str(tmp_path_factory.mktemp("nodes"))],
        cwd=ROOT,
        env={**other, "RAY_AUTH_MODE": "disabled", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    told: dict[str, Any] = json.loads(ended.stdout.strip().splitlines()[-1])
    return told


def worlds(notes: list[list[Any]]) -> list[int]:
    """The numbers of workers one after the other, without repetition."""
    found: list[int] = []
    for _, workers, _ in notes:
        if found[-1:] != [workers]:
            found.append(workers)
    return found


def parts(notes: list[list[Any]]) -> list[list[int]]:
    """The steps that were done with the same number of workers, one after the other."""
    found: list[list[int]] = []
    before = None
    for step, workers, _ in notes:
        if workers != before:
            found.append([])
        found[-1].append(step)
        before = workers
    return found


def test_two_workers_become_one_when_a_node_dies_and_two_again_when_another_comes(
    runs: dict[str, Any],
) -> None:
    assert worlds(runs["calm"]["notes"]) == [2]
    assert worlds(runs["elastic"]["notes"])[:3] == [2, 1, 2]


def test_the_global_batches_are_the_same_whatever_the_number_of_workers(runs: dict[str, Any]) -> None:
    calm, elastic = ({step: ids for step, _, ids in runs[name]["notes"]} for name in ("calm", "elastic"))
    assert calm == elastic
    assert all(calm[step] == ids for step, _, ids in runs["elastic"]["notes"])
    assert len(set(calm.values())) == len(calm)


def test_the_losses_agree_for_at_least_50_steps_after_each_change(runs: dict[str, Any]) -> None:
    assert all(len(set(part)) >= 50 for part in parts(runs["elastic"]["notes"])[1:])
    calm, elastic = runs["calm"]["history"], runs["elastic"]["history"]
    assert len(calm) == len(elastic) == 11
    for row, other in zip(calm, elastic, strict=True):
        assert row["train_loss"] == pytest.approx(other["train_loss"], abs=1e-4)


def test_a_death_costs_at_most_an_interval_and_a_quarter(runs: dict[str, Any]) -> None:
    times = Counter(step for step, _, _ in runs["elastic"]["notes"])
    assert max(times.values()) == 2
    assert sum(count - 1 for count in times.values()) <= 2 * 12.5


def test_a_node_that_is_announced_to_go_costs_no_step(runs: dict[str, Any]) -> None:
    notes = runs["elastic"]["notes"]
    assert worlds(notes) == [2, 1, 2, 1]
    *_, both, alone = parts(notes)
    assert [*both, *alone] == list(range(both[0], 275))
