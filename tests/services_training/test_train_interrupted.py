"""`python -m jobs.train` on the real services, while its worker, its driver, the store and MLflow die under it.

Two kills run in the suite; `pytest tests/services_training/test_train_interrupted.py --train-kills 10` or
`python -m jobs.kill_train --kills 20` do any number.
"""

import json
import os
import secrets
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from cluster.embedded.process import Identity, is_alive
from cluster.releases.registry import Registry
from jobs import kill_train
from jobs.kill_train import Ground
from jobs.runtime.entry import JobError
from train.checkpoints.store import COMMIT_NAME, CheckpointStore

pytestmark = pytest.mark.timeout(1800)


@dataclass(frozen=True)
class Calm:
    """The platform, and what an undisturbed run on it ends with."""

    ground: Ground
    run: str
    digest: str
    steps: int
    restart: Callable[[], None]


@pytest.fixture(scope="module")
def calm(platform: Any, ground: Ground) -> Iterator[Calm]:
    ground, run = replace(ground, options=kill_train.TINY | {"epochs": 8}), new_name()
    steps, digest = kill_train.undisturbed(ground, run)

    def restart() -> None:
        started = platform.command("up")
        assert started.returncode == 0, started.stdout + started.stderr

    yield Calm(ground, run, digest, steps, restart)
    restart()


def new_name() -> str:
    return f"run-{secrets.token_hex(4)}"


def kill_component(ground: Ground, name: str) -> None:
    identity = Identity(**json.loads(ground.home.state_file.read_text())["components"][name])
    os.kill(identity.pid, signal.SIGKILL)
    while is_alive(identity):
        time.sleep(0.01)


def test_killed_at_a_random_step_it_ends_with_the_same_bits(calm: Calm, pytestconfig: pytest.Config) -> None:
    kills, seed = pytestconfig.getoption("--train-kills"), pytestconfig.getoption("--kills-seed")
    for victim, step in kill_train.victims(kills, calm.steps, seed):
        ending = kill_train.killed(calm.ground, new_name(), victim, step)
        print(ending)
        assert ending.digest == calm.digest
        assert ending.resumed == (victim == "driver")


@pytest.mark.parametrize("rank", [0, 1])
def test_the_digest_sees_a_single_other_bit(calm: Calm, rank: int, tmp_path: Path) -> None:
    """In a copy of the undisturbed run's last checkpoint, committed as training does it."""
    store, name = kill_train.checkpoints(calm.ground, calm.run), new_name()
    last = store.committed()[0]
    store.fetch(last, tmp_path)
    changed = tmp_path / f"rank-000{rank}.safetensors"
    copy = kill_train.checkpoints(calm.ground, name)

    def committed() -> str:
        files = [one for one in tmp_path.iterdir() if one.name != COMMIT_NAME]
        copy.commit(last, {one.name: copy.put(last, one) for one in files})
        return kill_train.digest(calm.ground, name)

    assert committed() == calm.digest
    blob = bytearray(changed.read_bytes())
    blob[-4] ^= 1  # the lowest bit of the last number
    changed.write_bytes(blob)
    assert committed() != calm.digest


def test_a_store_and_an_mlflow_that_die_hold_training_up_no_step_and_catch_up(calm: Calm) -> None:
    name = new_name()
    job = kill_train.train(calm.ground, name)
    assert job.wait_for_step(calm.steps // 4)
    kill_component(calm.ground, "s3")
    kill_component(calm.ground, "mlflow")
    down_at = job.step
    assert job.wait_for_step(down_at + 30)
    calm.restart()
    report = job.report()
    assert kill_train.digest(calm.ground, name) == calm.digest
    client = Registry(calm.ground.settings).client
    epochs = [one.step for one in client.get_metric_history(report["mlflow_run_id"], "train_loss")]
    assert sorted(epochs) == list(range(1, calm.ground.options["epochs"] + 1))
    assert any("checkpoint of step" in line and "training goes on" in line for line in job.lines)


def test_a_dataset_version_that_is_gone_is_one_line(calm: Calm) -> None:
    gone = replace(calm.ground, dataset_version="0" * 16)
    with pytest.raises(JobError, match="0000000000000000"):
        kill_train.train(gone, new_name()).report()


def test_damaged_checkpoints_are_one_line_where_all_are_and_cost_one_where_it_is_the_newest(
    calm: Calm, tmp_path: Path
) -> None:
    name = new_name()
    job = kill_train.train(calm.ground, name)
    assert job.wait_for_step(20)
    job.process.kill()
    job.reader.join()
    store = kill_train.checkpoints(calm.ground, name)
    committed = store.committed()
    whole = {one: tmp_path / one / "rank-0000.safetensors" for one in committed}
    for one, file in whole.items():
        file.parent.mkdir()
        store.fetch(one, file.parent, file.name)
        write(store, f"{one}/{file.name}", b"torn")
    with pytest.raises(JobError, match=r"none of the \d checkpoints of this run is whole"):
        kill_train.train(calm.ground, name).report()
    newest = committed[0]
    for one, file in whole.items():
        write(store, f"{one}/{file.name}", file.read_bytes()[: -100 if one == newest else None])
    again = kill_train.train(calm.ground, name)
    assert again.report()["resumed"]
    assert any(f"checkpoint {newest} is damaged" in line for line in again.lines)
    assert kill_train.digest(calm.ground, name) == calm.digest


def write(store: CheckpointStore, key: str, blob: bytes) -> None:
    with store.filesystem.open_output_stream(f"{store.root}/{key}") as stream:
        stream.write(blob)
