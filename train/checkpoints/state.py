"""The whole state of a run as files of safetensors: each rank writes its part, any number of ranks reads them.

`snapshot` copies a rank's tensors on the training thread, which takes milliseconds; `Part.write` writes files of the
copy, later and on any thread. Beside each tensor lies its place in the whole one. Learning rate, order, augmentation
and dropout are pure functions of the configuration and the position, so no generator has a state.
`train.checkpoints.store` stores the files. torch's distributed checkpoint pickles its metadata; these files hold
tensors and JSON only.
"""

import json
import math
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor, Replicate
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from cluster.expected import ExpectedError
from train.inputs.sample_order import Position

FORMAT = 3
PROGRESS_NAME = "progress.json"
WEIGHTS_NAME = "model.safetensors"
"""The weights, unsharded; only in the last checkpoint of a run."""
AVERAGE_NAME = "average.safetensors"
"""Their moving average, where there is one; only in the last checkpoint of a run."""
HEADER = "part"
"""Key in the header of a rank's file: its sums, and each tensor's place in the whole one, as JSON."""
Tensors = Mapping[str, torch.Tensor]


class CheckpointError(ExpectedError):
    """A run cannot continue from its checkpoints; the message says why, and what to do."""


@dataclass(kw_only=True)
class Progress:
    """The live progress of a run. All but the sums is equal on all ranks."""

    position: Position = field(default_factory=Position)
    step: int = 0
    """Completed global batches, of all epochs; a skipped one counts."""
    loss_sum: float = 0.0
    """Weighted sum of this rank's training losses in this epoch so far."""
    weight_sum: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)
    """One row of metrics a finished epoch."""
    skipped: list[int] = field(default_factory=list)
    """Steps whose batch is skipped, because the gradient was not finite at the first of them."""


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Where a rank's tensor lies in the whole one."""

    shape: list[int]
    """Of the whole tensor."""
    offset: list[int]
    own: bool = False
    """Each rank has its own value, such as running statistics between two synchronisations."""


Pieces = dict[str, list[tuple[Any, Piece]]]
"""Tensor -> the open files that have some of it, by rank."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """A copy of one rank's share of the state."""

    rank: int
    tensors: dict[str, torch.Tensor]
    pieces: dict[str, Piece]
    sums: tuple[float, float]
    host: dict[str, Any] | None
    """On rank 0: everything that is not a tensor."""
    whole: Mapping[str, Tensors]
    """On rank 0: further files of unsharded tensors, by name."""

    def write(self, folder: Path) -> None:
        """Write the files; touches nothing that training changes."""
        pieces = {name: asdict(piece) for name, piece in self.pieces.items()}
        # one key: several have no fixed order in the file
        header = {HEADER: json.dumps({"sums": self.sums, "pieces": pieces})}
        safetensors.torch.save_file(self.tensors, folder / rank_name(self.rank), metadata=header)
        for name, tensors in self.whole.items():
            safetensors.torch.save_file(dict(tensors), folder / name)
        if self.host is not None:
            (folder / PROGRESS_NAME).write_text(json.dumps(self.host))


def rank_name(rank: int) -> str:
    return f"rank-{rank:04d}.safetensors"


@torch.no_grad()
def snapshot(
    state: Tensors,
    progress: Progress,
    about: Mapping[str, Any],
    *,
    own: Collection[str] = (),
    whole: Mapping[str, Tensors] | None = None,
) -> Part:
    """Copy this rank's share of the state; every rank calls it.

    Args:
        state: by name. A `DTensor` is sharded over the ranks, a plain tensor is the same on all of them.
        about: identity of the run, JSON values; `load` refuses another.
        own: names of plain tensors that differ between the ranks.
        whole: further files of unsharded tensors, which rank 0 writes.
    """
    rank = dist.get_rank()
    pieces = {name: _piece(tensor, own=name in own) for name, tensor in state.items()}
    mine = [name for nth, name in enumerate(state) if _saves(state[name], nth, own=name in own)]
    tensors = {name: _copied(local(state[name])) for name in mine}
    if any(tensor.is_cuda for tensor in state.values()):
        torch.cuda.synchronize()
    host = {"format": FORMAT, "world_size": dist.get_world_size(), "about": dict(about)}
    shared = {name: tensor for name, tensor in asdict(progress).items() if not name.endswith("_sum")}
    return Part(
        rank=rank,
        tensors=tensors,
        pieces={name: pieces[name] for name in mine},
        sums=(progress.loss_sum, progress.weight_sum),
        host=host | shared if rank == 0 else None,
        whole=(whole or {}) if rank == 0 else {},
    )


def local(tensor: torch.Tensor) -> torch.Tensor:
    """Return the part of a tensor on this rank; it shares the memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _copied(tensor: torch.Tensor) -> torch.Tensor:
    copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
    return copy.copy_(tensor.detach(), non_blocking=True)


def _piece(tensor: torch.Tensor, *, own: bool) -> Piece:
    if not isinstance(tensor, DTensor):
        return Piece(shape=list(tensor.shape), offset=[0] * tensor.ndim, own=own)
    _, offset = compute_local_shape_and_global_offset(tensor.shape, tensor.device_mesh, tensor.placements)
    return Piece(shape=list(tensor.shape), offset=list(offset))


def _saves(tensor: torch.Tensor, nth: int, *, own: bool) -> bool:
    """Return True if this rank saves a tensor: replicated ones are dealt out over the ranks, sharded ones saved by
    each.
    """
    if own:
        return True
    if not isinstance(tensor, DTensor):
        return nth % dist.get_world_size() == dist.get_rank()
    place: list[int] = list(tensor.device_mesh.get_coordinate() or [])
    copies = (isinstance(placement, Replicate) for placement in tensor.placements)
    return all(not copy or at == 0 for copy, at in zip(copies, place, strict=True))


@torch.no_grad()
def load(folder: Path, state: Tensors, about: Mapping[str, Any], *, elastic: bool = True) -> Progress:
    """Fill the tensors of a state in place, whatever number of ranks saved it.

    Args:
        folder: has the files of all ranks that saved it.
        elastic: False refuses the state of another number of ranks.
    Raises:
        CheckpointError: it is of another run, or a part of it is missing.
    """
    host = json.loads((folder / PROGRESS_NAME).read_text())
    _check_about(folder.name, host, about, elastic=elastic)
    with ExitStack() as opened:
        files = [
            opened.enter_context(safetensors.safe_open(folder / rank_name(rank), framework="pt"))
            for rank in range(host["world_size"])
        ]
        pieces = _pieces(files)
        _check_pieces(folder.name, pieces, state)
        for name, tensor in state.items():
            if pieces[name][0][1].own:
                _fill_own(name, tensor, [file for file, _ in pieces[name]])
            else:
                _fill(name, tensor, pieces[name])
        sums = _own_sums([_header(file)["sums"] for file in files])
    return Progress(
        position=Position(**host["position"]),
        loss_sum=sums[0],
        weight_sum=sums[1],
        **{name: host[name] for name in ("step", "history", "skipped")},
    )


def _header(file: Any) -> dict[str, Any]:
    return json.loads(file.metadata()[HEADER])


def _pieces(files: list[Any]) -> Pieces:
    by_name: Pieces = {}
    for file in files:
        for name, piece in _header(file)["pieces"].items():
            by_name.setdefault(name, []).append((file, Piece(**piece)))
    return by_name


def _check_about(name: str, host: Mapping[str, Any], about: Mapping[str, Any], *, elastic: bool) -> None:
    advice = "start the run with --fresh, or take another --run name"
    if host["format"] != FORMAT:
        raise CheckpointError(
            f"checkpoint {name} has format {host['format']}, this code has {FORMAT}: {advice}"
        )
    for what, mine in about.items():
        theirs = host["about"].get(what)
        if theirs != mine:
            raise CheckpointError(f"checkpoint {name} has {what} {theirs}, this run has {mine}: {advice}")
    if not elastic and host["world_size"] != dist.get_world_size():
        raise CheckpointError(
            f"checkpoint {name} is of {host['world_size']} workers, these are {dist.get_world_size()}, and this "
            f"strategy goes on with the same number only: set num_workers to {host['world_size']}, or {advice}"
        )


def _check_pieces(name: str, pieces: Pieces, state: Tensors) -> None:
    """Refuse pieces that do not fill the state; every rank comes to the same answer."""
    advice = "start the run with --fresh, or take another --run name"
    if odd := sorted(pieces.keys() ^ state.keys()):
        raise CheckpointError(
            f"checkpoint {name} is of another architecture ({odd[0]} is on one side only): {advice}"
        )
    for tensor_name, tensor in state.items():
        shape = pieces[tensor_name][0][1].shape
        if shape != list(tensor.shape):
            raise CheckpointError(
                f"checkpoint {name} is of another architecture ({tensor_name} has shape {shape}, this model has "
                f"{list(tensor.shape)}): {advice}"
            )
        slices = (file.get_slice(tensor_name) for file, _ in pieces[tensor_name])
        saved = sum(math.prod(stored.get_shape()) if shape else 1 for stored in slices)
        wanted = math.prod(shape) * (len(pieces[tensor_name]) if pieces[tensor_name][0][1].own else 1)
        if saved != wanted:
            raise CheckpointError(
                f"checkpoint {name} has {saved} of the {wanted} numbers of {tensor_name}: {advice}"
            )


def _fill(name: str, tensor: torch.Tensor, pieces: list[tuple[Any, Piece]]) -> None:
    """Copy the stored pieces that overlap this rank's part."""
    target, offset = local(tensor), _piece(tensor, own=False).offset
    for file, piece in pieces:
        if not target.ndim:
            target.copy_(file.get_tensor(name))
            return
        stored = file.get_slice(name)
        overlap = list(_overlap(offset, target.shape, piece.offset, stored.get_shape()))
        if all(mine.start < mine.stop for mine, _ in overlap):
            mine, theirs = (tuple(side) for side in zip(*overlap, strict=True))
            target[mine].copy_(stored[theirs])


def _overlap(
    mine: Collection[int], my_shape: Collection[int], theirs: Collection[int], their_shape: Collection[int]
) -> Iterator[tuple[slice, slice]]:
    """Yield, for each dimension, what two boxes share, as seen from the one and from the other."""
    for a, a_size, b, b_size in zip(mine, my_shape, theirs, their_shape, strict=True):
        start, stop = max(a, b), min(a + a_size, b + b_size)
        yield slice(start - a, stop - a), slice(start - b, stop - b)


def _fill_own(name: str, tensor: torch.Tensor, files: list[Any]) -> None:
    """Copy this rank's own value; the mean of all if the number of ranks differs."""
    if len(files) == dist.get_world_size():
        tensor.copy_(files[dist.get_rank()].get_tensor(name))
    elif tensor.is_floating_point():
        tensor.copy_(torch.stack([file.get_tensor(name).double() for file in files]).mean(dim=0))
    else:
        tensor.copy_(files[0].get_tensor(name))


def _own_sums(sums: list[list[float]]) -> list[float]:
    """Return this rank's sums; an equal share of all if the number of ranks differs."""
    world_size = dist.get_world_size()
    if len(sums) == world_size:
        return sums[dist.get_rank()]
    return [sum(column) / world_size for column in zip(*sums, strict=True)]
