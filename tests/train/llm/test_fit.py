"""Fine-tuning a tiny model: it learns, an interrupted run ends with the same bits, the export is what was learned."""

from dataclasses import replace
from pathlib import Path

import pyarrow.fs
import pytest
import safetensors.torch
import torch

from tests.train.llm.small_model import CONFIG
from train.checkpoints.manager import RunCheckpoints
from train.checkpoints.state import CheckpointError, Progress
from train.checkpoints.store import CheckpointStore, Retention
from train.llm import fit as llm_fit
from train.llm import model, packing
from train.llm.config import LlmConfig, LoraConfig
from train.llm.single_process import alone
from train.loop.fit import fit
from train.loop.interfaces import Speed, TrainingCallbacks, TrainingDivergedError
from train.vit.inference import weights_sha256

PAIRS = [(f"What is number {nth}?", f"It is {nth}, a number.") for nth in range(11)]
CPU = torch.device("cpu")


class Killed(Exception):
    pass


def train(
    base: Path, folder: Path, config: LlmConfig = CONFIG, kill_at: int | None = None
) -> tuple[str, list[float], list[Path]]:
    """Hash of what was learned, the losses of this attempt, and the folders of its checkpoints."""
    losses: list[float] = []

    def step(progress: Progress, steps: int, loss: float) -> None:
        losses.append(loss)
        if progress.step == kill_at:
            raise Killed

    with alone():
        context = llm_fit.prepare(config, base, PAIRS, run="run", device=CPU)
        store = CheckpointStore(pyarrow.fs.LocalFileSystem(), str(folder))
        checkpoints = RunCheckpoints(store, Retention(newest=2))
        try:
            fit(context, checkpoints, TrainingCallbacks(step=step))
        except Killed:
            checkpoints.flush()
        finally:
            checkpoints.close()
        return weights_sha256(context.weights()), losses, [folder / name for name in store.committed()]


@pytest.mark.parametrize(
    "config", [CONFIG, replace(CONFIG, method="full", learning_rate=1e-3)], ids=["lora", "full"]
)
def test_a_run_that_was_killed_ends_with_the_same_bits(
    tiny_llm: Path, tmp_path: Path, config: LlmConfig
) -> None:
    undisturbed, losses, _ = train(tiny_llm, tmp_path / "a", config)
    assert losses[-1] < losses[0] - 0.1
    assert len(losses) > 8
    half, before, _ = train(tiny_llm, tmp_path / "b", config, kill_at=7)
    again, after, _ = train(tiny_llm, tmp_path / "b", config)
    assert half != undisturbed
    assert again == undisturbed
    assert len(before) + len(after) < 2 * len(losses), "it went on, and did not begin again"


def test_a_checkpoint_has_adapters_and_nothing_of_the_base(tiny_llm: Path, tmp_path: Path) -> None:
    *_, folders = train(tiny_llm, tmp_path, replace(CONFIG, epochs=1))
    weights = safetensors.torch.load_file(folders[0] / "model.safetensors")
    state = safetensors.torch.load_file(folders[0] / "rank-0000.safetensors")
    assert weights
    assert all(".lora_" in name for name in [*weights, *state])


def test_a_checkpoint_of_another_architecture_is_refused(tiny_llm: Path, tmp_path: Path) -> None:
    train(tiny_llm, tmp_path, kill_at=3)
    with pytest.raises(
        CheckpointError, match=r"has architecture .*, this run has .*: start the run with --fresh"
    ):
        train(tiny_llm, tmp_path, replace(CONFIG, lora=LoraConfig(r=2)))


def test_accumulation_and_packing_change_the_work_and_not_the_gradient(tiny_llm: Path) -> None:
    """One step of plain gradient descent over the same pairs, cut differently."""
    whole = replace(CONFIG, batch_size=11, packing=False, lora=LoraConfig(dropout=0.0), clip_norm=0.0)
    ways = {
        "alone": whole,
        "at once": replace(whole, microbatch_size=11),
        "packed": replace(whole, packing=True),
    }
    gradients = {}
    for name, config in ways.items():
        with alone():
            context = llm_fit.prepare(config, tiny_llm, PAIRS, run="run", device=CPU)
            chosen = [packing.batch([row]) for row in context.rows]
            if name == "at once":
                chosen = [packing.batch(context.rows)]
            for one in chosen:
                model.answer_loss(context.model, one, config).backward()
            gradients[name] = torch.cat([one.grad.flatten() for one in model.learned(context.model).values()])
    assert gradients["alone"].abs().max() > 0
    for one in gradients.values():
        torch.testing.assert_close(one, gradients["alone"], atol=1e-3, rtol=1e-3)


def test_a_loss_that_is_no_number_ends_the_run_and_changes_nothing(tiny_llm: Path) -> None:
    with alone():
        context = llm_fit.prepare(CONFIG, tiny_llm, PAIRS, run="run", device=CPU)
        context.model.transformer.ln_f.weight.data.fill_(float("nan"))
        before = weights_sha256(context.weights())
        with pytest.raises(TrainingDivergedError, match="at step 0: lower learning_rate"):
            context.update(Progress(), torch.arange(2).numpy(), Speed())
        assert weights_sha256(context.weights()) == before
