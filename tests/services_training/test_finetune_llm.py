"""`python -m jobs.finetune_llm` on the real services with a tiny model: killed half-way, the same bits in the end."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cluster import progress
from cluster.objects import ObjectStore
from cluster.releases import bundles, code_package
from cluster.releases.registry import LLM, Registry
from jobs.kill_train import Ground
from serve.explanation.llm import LanguageModel
from train.llm.base_weights import verify

pytestmark = pytest.mark.timeout(1800)

ROOT = Path(__file__).resolve().parents[2]
KILL_AT = 12
OPTIONS = {
    "pairs": 40,
    "unseen": 1,
    "finetune.epochs": 2,
    "finetune.batch_size": 1,
    "finetune.checkpoint_every_steps": 3,
    "finetune.max_seq_length": 512,
}


@pytest.fixture(scope="module")
def base(platform: Any, tiny_llm: Path) -> str:
    """The tiny model as a registered version."""
    files: dict[str, bytes | Path] = {one.name: one for one in tiny_llm.iterdir()}
    key = bundles.publish(ObjectStore(platform.settings), {**files, "code.zip": code_package.build()})
    return Registry(platform.settings).register(LLM, key, None, {"base": "tiny"})


def start(platform: Any, base: str, run: str, *more: str) -> "subprocess.Popen[str]":
    options = [*(f"--{name}={value}" for name, value in OPTIONS.items()), *more]
    return subprocess.Popen(
        [sys.executable, "-m", "jobs.finetune_llm", "--base", base, "--run", run, *options],
        cwd=ROOT,
        env=platform.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture(scope="module")
def calm(platform: Any, base: str) -> dict[str, Any]:
    """The last line of a job that nothing happens to."""
    return ending(start(platform, base, "llm-calm"))


def ending(job: "subprocess.Popen[str]") -> dict[str, Any]:
    told, _ = job.communicate()
    lines = [line for line in told.splitlines() if line.startswith('{"job"')]
    assert lines, told
    found: dict[str, Any] = json.loads(lines[-1])
    return found


def wait_for(job: "subprocess.Popen[str]", step: int) -> None:
    assert job.stdout is not None
    for line in job.stdout:
        said = progress.parse(line)
        if said is not None and said.stage == "finetune" and said.total > 1 and said.done >= step:
            return
    raise AssertionError(f"it ended before step {step}")


def kill_at(job: "subprocess.Popen[str]", step: int) -> None:
    """SIGKILL once it has come so far."""
    wait_for(job, step)
    job.kill()
    job.communicate()


def test_a_killed_job_goes_on_and_ends_with_the_same_adapters(
    platform: Any, base: str, calm: dict[str, Any], tmp_path: Path
) -> None:
    assert (calm["status"], calm["resumed"], calm["alias"]) == ("ok", False, None), calm
    kill_at(start(platform, base, "llm-killed"), KILL_AT)
    again = ending(start(platform, base, "llm-killed"))
    assert (again["status"], again["resumed"], again["steps"]) == ("ok", True, calm["steps"]), again
    assert again["weights_sha256"] == calm["weights_sha256"]
    bundles.fetch(ObjectStore(platform.settings), again["bundle"], tmp_path)
    assert verify(tmp_path)["learned"]["weights_sha256"] == calm["weights_sha256"]
    assert LanguageModel.load(tmp_path).name == "SmolLM2-135M-Instruct"


def test_a_killed_worker_costs_nothing_and_what_was_learned_becomes_the_champion(
    platform: Any, base: str, calm: dict[str, Any]
) -> None:
    """The tiny model passes nothing, before or after: it is as good as the champion."""
    ground = Ground(home=platform.home, env=platform.env, settings=platform.settings)
    registry = Registry(platform.settings)
    registry.set_alias(LLM, "champion", base)
    job = start(platform, base, "llm-worker", "--promote")
    wait_for(job, KILL_AT)
    ground.workers()[0].kill()
    told = ending(job)
    assert (told["status"], told["resumed"], told["alias"]) == ("ok", False, "champion"), told
    assert registry.version_by_alias(LLM, "champion") == told["model_version"]
    assert registry.version_by_alias(LLM, "previous") == base
    assert told["weights_sha256"] == calm["weights_sha256"]
