"""Fine-tuning a tiny model: it learns, an interrupted run ends with the same bits, the export is what was learned."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow.fs
import pytest
import safetensors.torch
import torch

from serve.explanation.llm import LanguageModel
from train.checkpoints.manager import RunCheckpoints
from train.checkpoints.state import CheckpointError, Progress
from train.checkpoints.store import CheckpointStore, Retention
from train.llm import fit as llm_fit
from train.llm import merge, model, nf4, packing
from train.llm.base_weights import verify
from train.llm.config import LlmConfig, LoraConfig
from train.llm.model import LlmModelError
from train.llm.single_process import alone, learn
from train.loop.fit import Speed, TrainingCallbacks, TrainingDivergedError, fit
from train.vit.inference import weights_sha256

PAIRS = [(f"What is number {nth}?", f"It is {nth}, a number.") for nth in range(11)]
CONFIG = LlmConfig(
    epochs=3, batch_size=1, checkpoint_every_steps=2, learning_rate=5e-3, max_seq_length=256, seed=5
)
CPU = torch.device("cpu")


class Killed(Exception):
    pass


@pytest.fixture(autouse=True)
def deterministic() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


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


def test_the_merged_export_answers_as_base_and_adapters_did(tiny_llm: Path, tmp_path: Path) -> None:
    weights, _ = learn(CONFIG, tiny_llm, PAIRS, CPU)
    merged = merge.export(tiny_llm, tmp_path, CONFIG, weights, {"run": "run"})
    adapted = model.build(tiny_llm, CONFIG, CPU).eval()
    untouched = model.build(tiny_llm, replace(CONFIG, method="full"), CPU).eval()
    model.fill(adapted, weights)
    plain = model.build(merged, replace(CONFIG, method="full"), CPU).eval()
    tokens_BT = torch.arange(60)[None]
    torch.testing.assert_close(plain(tokens_BT), adapted(tokens_BT), atol=5e-3, rtol=5e-3)
    assert (plain(tokens_BT) - untouched(tokens_BT)).abs().max() > 0.05
    assert verify(merged)["learned"] == {"run": "run"}
    assert LanguageModel.load(merged).name == LanguageModel.load(tiny_llm).name


def test_what_is_learned_in_bfloat16_is_float32_and_gets_better(tiny_llm: Path) -> None:
    weights, progress = learn(replace(CONFIG, precision="bfloat16"), tiny_llm, PAIRS, CPU)
    assert {one.dtype for one in weights.values()} == {torch.float32}
    assert progress.history[-1]["train_loss"] < progress.history[0]["train_loss"]


def test_a_loss_that_is_no_number_ends_the_run_and_changes_nothing(tiny_llm: Path) -> None:
    with alone():
        context = llm_fit.prepare(CONFIG, tiny_llm, PAIRS, run="run", device=CPU)
        context.model.transformer.ln_f.weight.data.fill_(float("nan"))
        before = weights_sha256(context.weights())
        with pytest.raises(TrainingDivergedError, match="at step 0: lower learning_rate"):
            context.update(Progress(), torch.arange(2).numpy(), Speed())
        assert weights_sha256(context.weights()) == before


def test_a_base_of_other_shapes_or_with_a_torn_file_is_one_line(tiny_llm: Path, tmp_path: Path) -> None:
    for path in tiny_llm.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    weights = tmp_path / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])
    with pytest.raises(LlmModelError, match="is missing or damaged"):
        model.build(tmp_path, CONFIG, CPU)
    tensors = safetensors.torch.load(whole)
    del tensors["transformer.ln_f.weight"]
    safetensors.torch.save_file(tensors, weights)
    with pytest.raises(
        LlmModelError, match=r"another architecture: transformer\.ln_f\.weight is on one side only"
    ):
        model.build(tmp_path, CONFIG, CPU)


def test_four_bits_are_refused_where_there_is_no_cuda(tiny_llm: Path) -> None:
    config = LlmConfig(method="qlora", use_gpu=True, precision="bfloat16")
    with pytest.raises(nf4.Nf4Error, match="needs a CUDA device, this worker has cpu: take method lora"):
        model.build(tiny_llm, config, CPU)


def test_four_bits_without_the_package_say_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nf4, "PACKAGE", "no_such_package")
    with pytest.raises(nf4.Nf4Error, match="python -m pip install no_such_package"):
        nf4.available(torch.device("cuda"))


def test_the_history_is_what_json_takes(tiny_llm: Path) -> None:
    _, progress = learn(replace(CONFIG, epochs=1), tiny_llm, PAIRS, CPU)
    assert json.loads(json.dumps(progress.history))[0]["epoch"] == 1
