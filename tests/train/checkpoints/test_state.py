"""One rank in this process; shards of several ranks are seen in test_fit.py."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from train.checkpoints.state import PROGRESS_NAME, CheckpointError, Progress, load, snapshot
from train.inputs.sample_order import Position

ABOUT = {"architecture": "vit_tiny", "classes": ["a", "b"], "run": "r"}


@pytest.fixture(autouse=True)
def one_rank(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'group'}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return {
        "model.weight": torch.randn(3, 4),
        "model.half": torch.randn(5).bfloat16(),
        "model.running_mean": torch.randn(2),
        "optimizer.step": torch.tensor(7.0),
        "optimizer.empty": torch.zeros(0),
    }


def progress() -> Progress:
    return Progress(
        position=Position(epoch=1, batch=2),
        step=6,
        loss_sum=0.1 + 0.2,
        weight_sum=1 / 3,
        history=[{"epoch": 1, "train_loss": 0.1 + 0.7}],
        skipped=[3, 4],
    )


def saved(folder: Path) -> Path:
    folder.mkdir()
    snapshot(state(), progress(), ABOUT, own={"model.running_mean"}).write(folder)
    return folder


def blank() -> dict[str, torch.Tensor]:
    return {name: torch.full_like(one, -1) for name, one in state().items()}


def test_everything_comes_back_to_the_bit(tmp_path: Path) -> None:
    found = blank()
    assert load(saved(tmp_path / "c"), found, ABOUT) == progress()
    assert all(torch.equal(one, found[name]) for name, one in state().items())


def test_what_training_changes_after_the_snapshot_is_not_in_it(tmp_path: Path) -> None:
    live = state()
    moving = progress()
    part = snapshot(live, moving, ABOUT)
    for one in live.values():
        one.zero_()
    moving.history.append({})
    moving.history[0]["train_loss"] = 0.0
    (tmp_path / "c").mkdir()
    part.write(tmp_path / "c")
    found = blank()
    assert load(tmp_path / "c", found, ABOUT).history == progress().history
    assert torch.equal(found["model.weight"], state()["model.weight"])


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"architecture": "vit_base"}, "has architecture vit_tiny, this run has vit_base"),
        ({"classes": ["a", "c"]}, r"has classes \['a', 'b'\], this run has \['a', 'c'\]"),
        ({"run": "another"}, "has run r, this run has another"),
    ],
)
def test_a_checkpoint_of_something_else_is_refused_with_what_differs(
    tmp_path: Path, other: dict[str, Any], says: str
) -> None:
    with pytest.raises(CheckpointError, match=f"{says}.*--fresh") as caught:
        load(saved(tmp_path / "c"), blank(), ABOUT | other)
    assert "\n" not in str(caught.value)


def test_tensors_of_another_shape_or_name_are_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path / "c")
    with pytest.raises(CheckpointError, match=r"model.weight has shape \[3, 4\], this model has \[4, 4\]"):
        load(folder, blank() | {"model.weight": torch.zeros(4, 4)}, ABOUT)
    with pytest.raises(CheckpointError, match=r"model\.more is on one side only"):
        load(folder, blank() | {"model.more": torch.zeros(1)}, ABOUT)


def test_another_format_is_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path / "c")
    host = json.loads((folder / PROGRESS_NAME).read_text())
    (folder / PROGRESS_NAME).write_text(json.dumps(host | {"format": 1}))
    with pytest.raises(CheckpointError, match="format 1"):
        load(folder, blank(), ABOUT)


def test_a_strategy_that_is_not_elastic_refuses_another_number_of_workers(tmp_path: Path) -> None:
    folder = saved(tmp_path / "c")
    host = json.loads((folder / PROGRESS_NAME).read_text())
    (folder / PROGRESS_NAME).write_text(json.dumps(host | {"world_size": 2}))
    with pytest.raises(CheckpointError, match=r"is of 2 workers, these are 1.*set num_workers to 2"):
        load(folder, blank(), ABOUT, elastic=False)
