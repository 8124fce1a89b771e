"""`python -m jobs.train` on the real services, while its worker, its driver, the store and MLflow die under it.

Two kills run in the suite; `pytest tests/services/test_train_interrupted.py --train-kills 10` or
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

from cluster.process import Identity, is_alive
from cluster.registry import Registry
from jobs import kill_train
from jobs.entry import JobError
from jobs.kill_train import Ground

pytestmark = pytest.mark.timeout(1800)


@dataclass(frozen=True)
class Calm:
    """The platform, and what an undisturbed run on it ends with."""

    ground: Ground
    digest: str
    steps: int
    restart: Callable[[], None]


@pytest.fixture(scope="module")
def calm(platform: Any) -> Iterator[Calm]:
    bare = Ground(home=platform.home, env=platform.env | {"SPT_NOENV": "1"}, settings=platform.settings)
    ground = replace(bare, dataset_version=kill_train.dataset(bare))
    steps, digest = kill_train.undisturbed(ground, new_name())

    def restart() -> None:
        started = platform.command("up")
        assert started.returncode == 0, started.stdout + started.stderr

    yield Calm(ground, digest, steps, restart)
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


def test_the_digest_sees_a_single_other_number(calm: Calm) -> None:
    other = replace(calm.ground, options=calm.ground.options | {"optim.weight_decay": 0.0501})
    assert kill_train.undisturbed(other, new_name())[1] != calm.digest


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


def test_checkpoints_that_are_all_damaged_are_one_line_and_no_new_beginning(calm: Calm) -> None:
    name = new_name()
    job = kill_train.train(calm.ground, name)
    assert job.wait_for_step(20)
    job.process.kill()
    job.reader.join()
    store = kill_train.checkpoints(calm.ground, name)
    for one in store.committed():
        with store.filesystem.open_output_stream(f"{store.root}/{one}/rank-0000.safetensors") as stream:
            stream.write(b"torn")
    with pytest.raises(JobError, match=r"none of the \d checkpoints of this run is whole"):
        kill_train.train(calm.ground, name).report()


def test_a_torn_upload_costs_one_checkpoint_and_no_bit(calm: Calm, tmp_path: Path) -> None:
    name = new_name()
    job = kill_train.train(calm.ground, name)
    assert job.wait_for_step(20)
    job.process.kill()
    job.reader.join()
    store = kill_train.checkpoints(calm.ground, name)
    newest = store.committed()[0]
    whole = tmp_path / "rank-0001.safetensors"
    store.fetch(newest, tmp_path, whole.name)
    with store.filesystem.open_output_stream(f"{store.root}/{newest}/{whole.name}") as stream:
        stream.write(whole.read_bytes()[:-100])
    again = kill_train.train(calm.ground, name)
    assert again.report()["resumed"]
    assert any(f"checkpoint {newest} is damaged" in line for line in again.lines)
    assert kill_train.digest(calm.ground, name) == calm.digest
