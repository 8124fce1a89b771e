"""The whole state of a run, saved with torch.distributed.checkpoint: one folder, one file a rank.

Besides the tensors it holds the position in the data, the running sums and the history, as JSON. Learning rate,
order, augmentation and dropout are pure functions of the configuration and the position, so they need no state.
Where the folder goes is the caller's business.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import safetensors.torch
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_state_dict,
    set_state_dict,
)

from train.sample_order import Position

FORMAT = 1
PROGRESS_NAME = "progress.json"
WEIGHTS_NAME = "model.safetensors"
"""Only in the last checkpoint of a run."""


class CheckpointError(ValueError):
    """A checkpoint cannot be continued from: another configuration, dataset or format, or it is damaged."""


@dataclass(kw_only=True)
class Progress:
    """How far a run is; live, and equal on all ranks whenever it is saved."""

    position: Position = field(default_factory=Position)
    step: int = 0
    """Updates made."""
    loss_sum: float = 0.0
    """Weighted sum of this epoch's training losses so far."""
    weight_sum: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)
    """One row of metrics a finished epoch."""


def save(
    directory: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer, progress: Progress, run: str
) -> None:
    """Write this rank's part; every rank calls it, each with its own or the same folder.

    Args:
        run: what the checkpoint belongs to; `load` refuses another.
    """
    weights, moments = get_state_dict(model, optimizer)
    dcp.save({"model": weights, "optimizer": moments}, checkpoint_id=str(directory))
    if dist.get_rank() == 0:
        host = {"format": FORMAT, "run": run, "world_size": dist.get_world_size(), **asdict(progress)}
        (directory / PROGRESS_NAME).write_text(json.dumps(host))


def load(directory: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer, run: str) -> Progress:
    """Bring model and optimizer to the saved state, whatever number of ranks saved it.

    Raises:
        CheckpointError: it belongs to another run or format, or a part of it is missing.
    """
    try:
        host: dict[str, Any] = json.loads((directory / PROGRESS_NAME).read_text())
    except (FileNotFoundError, json.JSONDecodeError) as error:
        raise CheckpointError(
            f"the checkpoint in {directory.name} has no readable {PROGRESS_NAME}"
        ) from error
    if (host["format"], host["run"]) != (FORMAT, run):
        raise CheckpointError(
            f"the checkpoint in {directory.name} belongs to {host['run']} (format {host['format']}), "
            f"this run is {run} (format {FORMAT}); start it with --fresh or another --run name"
        )
    weights, moments = get_state_dict(model, optimizer)
    dcp.load({"model": weights, "optimizer": moments}, checkpoint_id=str(directory))  # fills them in place
    set_state_dict(model, optimizer, model_state_dict=weights, optim_state_dict=moments)
    return Progress(
        position=Position(**host["position"]),
        **{name: host[name] for name in ("step", "loss_sum", "weight_sum", "history")},
    )


def save_weights(directory: Path, model: torch.nn.Module) -> None:
    """Write the unsharded weights as safetensors, on rank 0; every rank calls it."""
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    weights = cast(dict[str, torch.Tensor], get_model_state_dict(model, options=options))
    if dist.get_rank() == 0:  # elsewhere there are none
        plain = {
            name: (one.float() if one.is_floating_point() else one).contiguous()
            for name, one in weights.items()
        }
        (directory / WEIGHTS_NAME).write_bytes(safetensors.torch.save(plain))
