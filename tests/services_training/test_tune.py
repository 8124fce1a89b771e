"""`python -m jobs.tune` on the real services: its driver and Ray are killed, and the same command goes on."""

import json
import secrets
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster.objects import ObjectStore
from cluster.releases.registry import Registry
from jobs.kill_train import Ground
from jobs.runtime.entry import JobError
from jobs.runtime.job_process import JobProcess
from train.runs.run_store import BUCKET
from tune.sweep_store import Sweep, SweepStore, Trial

pytestmark = pytest.mark.timeout(600)

SPACE = {
    "optim.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
    "label_smoothing": {"low": 0, "high": 0.2},
}
TINY = (
    "--train.model.name",
    "vit_tiny_patch16_224",
    "--train.model.kwargs",
    '{"depth": 1}',
    "--train.epochs",
    "2",
)


def start(ground: Ground, run: str, folder: Path, *more: str, space: dict[str, Any] = SPACE) -> JobProcess:
    (folder / "space.yaml").write_text(json.dumps(space))
    asked = ("--recipe", "smoke", "--run", run, "--dataset_version", ground.dataset_version)
    limits = (
        "--trials",
        "2",
        "--max_concurrent_trials",
        "1",
        "--grace_epochs",
        "2",
        "--train.num_workers",
        "1",
    )
    files = ("--space", str(folder / "space.yaml"), "--recipe_file", str(folder / "winner.yaml"))
    return JobProcess(ground.start("jobs.tune", *asked, *limits, *files, *TINY, *more), "jobs.tune")


def kept(ground: Ground, run: str) -> list[Trial]:
    store = ObjectStore(ground.settings)
    return SweepStore(store, Sweep(**store.get_json(BUCKET, f"sweeps/{run}/sweep.json"))).trials


def test_a_sweep_that_is_killed_repeats_nothing_and_its_winner_is_trained_already(
    ground: Ground, platform: Any, tmp_path: Path
) -> None:
    run = f"sweep-{secrets.token_hex(4)}"
    job = start(ground, run, tmp_path)
    assert job.wait_for_line("trial 1: epoch 1")
    job.process.send_signal(signal.SIGKILL)
    job.reader.join()
    assert platform.command("down").returncode == 0
    assert platform.command("up").returncode == 0
    before = kept(ground, run)
    assert [(one.state, one.epochs) for one in before] == [("complete", 2), ("unfinished", 1)]

    report = start(ground, run, tmp_path).report()
    after = kept(ground, run)
    assert (report["resumed"], report["trained"]) == (True, 1)
    assert report["trials"] == {"complete": 2, "stopped": 0, "failed": 0, "unfinished": 0}
    assert after[0] == before[0]
    assert after[1].rows[0] == before[1].rows[0]
    assert report["cpu_minutes"] > sum(sum(one.cpu_s.values()) for one in before) / 60

    client = Registry(ground.settings).client
    children = client.search_runs(
        [client.get_run(report["mlflow_run_id"]).info.experiment_id],
        f"tags.`mlflow.parentRunId` = '{report['mlflow_run_id']}'",
    )
    assert {one.data.params["trial"] for one in children} == {"0", "1"}
    for one in children:
        assert one.info.status == "FINISHED"
        steps = [
            row.step for row in client.get_metric_history(one.info.run_id, "validation_balanced_accuracy")
        ]
        assert sorted(steps) == [1, 2]  # what the killed worker did not send comes at the end
    artifacts = {one.path for one in client.list_artifacts(report["mlflow_run_id"], "sweep")}
    assert artifacts == {"sweep/recipe.yaml", "sweep/parallel-coordinates.png"}
    assert report["importance"].startswith("none: it takes at least 4 trials")

    store, best = ObjectStore(ground.settings), report["best"]["trial"]
    for one in after:  # only the winner's weights are kept
        kept_files = store.keys(BUCKET, f"runs/{one.run}/g001/checkpoints/")
        assert bool(kept_files) == (one.number == best)

    trained = ground.run("jobs.train", "--config", report["recipe_file"])
    assert (trained["resumed"], trained["run"]) == (True, after[report["best"]["trial"]].run)
    assert client.get_model_version("xray-vit", trained["model_version"]).run_id in {
        one.info.run_id for one in children
    }
    assert (tmp_path / "winner-parallel-coordinates.png").exists()


def test_where_every_trial_diverges_the_sweep_fails_in_one_line(ground: Ground, tmp_path: Path) -> None:
    """Each rolls back, skips the batches once, and breaks again."""
    absurd = ("--train.optim.learning_rate", "1e30", "--train.optim.warmup_share", "0")
    space = {"optim.learning_rate": {"low": 1e30, "high": 2e30}}
    with pytest.raises(
        JobError, match=r"all 2 trials failed; trial 0: the gradient is no number at step \d+"
    ):
        start(ground, f"sweep-{secrets.token_hex(4)}", tmp_path, *absurd, space=space).report()


def test_a_second_job_for_a_sweep_that_runs_ends_in_one_line(ground: Ground, tmp_path: Path) -> None:
    run = f"sweep-{secrets.token_hex(4)}"
    long = ("--train.epochs", "200")
    first = start(ground, run, tmp_path, *long)
    assert first.wait_for_line("trial 0: epoch 1")
    with pytest.raises(JobError, match="is being worked on by another job: wait until that has ended"):
        start(ground, run, tmp_path, *long).report()
    first.process.send_signal(signal.SIGKILL)
    first.reader.join()


def test_what_is_wrong_is_one_line(ground: Ground, tmp_path: Path) -> None:
    gone = replace(ground, dataset_version="0" * 16)
    with pytest.raises(JobError, match="0000000000000000"):
        start(gone, "sweep-x", tmp_path).report()
