"""The whole state of a run as files of safetensors: each rank writes what it holds, any number of ranks reads it.

`snapshot` copies a rank's tensors on the training thread, which takes milliseconds; `Part.write` makes files of the
copy, later and on any thread. Next to each tensor lies where it belongs in the whole one. Learning rate, order,
augmentation and dropout are pure functions of the configuration and the position, so no generator has a state.
Where the files go is `train.checkpoint_store`'s business.
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
from train.sample_order import Position

FORMAT = 3
PROGRESS_NAME = "progress.json"
WEIGHTS_NAME = "model.safetensors"
"""The weights, unsharded; only in the last checkpoint of a run."""
AVERAGE_NAME = "average.safetensors"
"""Their moving average, where there is one; only in the last checkpoint of a run."""
HEADER = "part"
"""In the header of a rank's file: its sums, and for each tensor its place in the whole one, as JSON."""
Tensors = Mapping[str, torch.Tensor]


class CheckpointError(ExpectedError):
    """A run cannot go on from its checkpoints; the message says why, and what to do."""


@dataclass(kw_only=True)
class Progress:
    """How far a run is; live. All but the sums is equal on all ranks."""

    position: Position = field(default_factory=Position)
    step: int = 0
    """Global batches behind it, of all epochs; a skipped one counts."""
    loss_sum: float = 0.0
    """Weighted sum of this rank's training losses in this epoch so far."""
    weight_sum: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)
    """One row of metrics a finished epoch."""
    skipped: list[int] = field(default_factory=list)
    """Steps whose batch is passed over, because the gradient was no number at the first of them."""


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Where a rank's tensor lies in the whole one."""

    shape: list[int]
    """Of the whole tensor."""
    offset: list[int]
    own: bool = False
    """Each rank has a value of its own, such as running statistics between two agreements."""


Pieces = dict[str, list[tuple[Any, Piece]]]
"""Tensor -> the open files that have some of it, by rank."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """A copy of what one rank has to save."""

    rank: int
    tensors: dict[str, torch.Tensor]
    pieces: dict[str, Piece]
    sums: tuple[float, float]
    host: dict[str, Any] | None
    """On rank 0: everything that is no tensor."""
    whole: Mapping[str, Tensors]
    """On rank 0: further files of unsharded tensors, by name."""

    def write(self, folder: Path) -> None:
        """Make files of it; touches nothing that training changes."""
        pieces = {name: asdict(one) for name, one in self.pieces.items()}
        header = {
            HEADER: json.dumps({"sums": self.sums, "pieces": pieces})
        }  # one key: two have no fixed order
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
        state: by name. A `DTensor` is shared out over the ranks, a plain tensor is the same on all of them.
        about: what the checkpoint belongs to, as JSON takes it; `load` refuses another.
        own: names of plain tensors that differ between the ranks.
        whole: further files of unsharded tensors, which rank 0 writes.
    """
    rank = dist.get_rank()
    pieces = {name: _piece(one, own=name in own) for name, one in state.items()}
    mine = [name for nth, name in enumerate(state) if _saves(state[name], nth, own=name in own)]
    tensors = {name: _copied(local(state[name])) for name in mine}
    if any(one.is_cuda for one in state.values()):
        torch.cuda.synchronize()
    host = {"format": FORMAT, "world_size": dist.get_world_size(), "about": dict(about)}
    shared = {name: one for name, one in asdict(progress).items() if not name.endswith("_sum")}
    return Part(
        rank=rank,
        tensors=tensors,
        pieces={name: pieces[name] for name in mine},
        sums=(progress.loss_sum, progress.weight_sum),
        host=host | shared if rank == 0 else None,
        whole=(whole or {}) if rank == 0 else {},
    )


def local(tensor: torch.Tensor) -> torch.Tensor:
    """The part of a tensor that lies on this rank; it shares its memory."""
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
    """Whether this rank saves it: what all have is shared out over them, what is shared out each saves its own of."""
    if own:
        return True
    if not isinstance(tensor, DTensor):
        return nth % dist.get_world_size() == dist.get_rank()
    place: list[int] = list(tensor.device_mesh.get_coordinate() or [])
    copies = (isinstance(one, Replicate) for one in tensor.placements)
    return all(not copy or at == 0 for copy, at in zip(copies, place, strict=True))


@torch.no_grad()
def load(folder: Path, state: Tensors, about: Mapping[str, Any], *, elastic: bool = True) -> Progress:
    """Fill the tensors of a state in place, whatever number of ranks saved it.

    Args:
        folder: has the files of all ranks that saved it.
        elastic: false refuses the state of another number of ranks.
    Raises:
        CheckpointError: it belongs to something else, or a part of it is missing.
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
    found: dict[str, Any] = json.loads(file.metadata()[HEADER])
    return found


def _pieces(files: list[Any]) -> Pieces:
    found: Pieces = {}
    for file in files:
        for name, one in _header(file)["pieces"].items():
            found.setdefault(name, []).append((file, Piece(**one)))
    return found


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
    """Refuse what does not fill the state; every rank comes to the same answer."""
    advice = "start the run with --fresh, or take another --run name"
    if odd := sorted(pieces.keys() ^ state.keys()):
        raise CheckpointError(
            f"checkpoint {name} is of another architecture ({odd[0]} is on one side only): {advice}"
        )
    for one, tensor in state.items():
        shape = pieces[one][0][1].shape
        if shape != list(tensor.shape):
            raise CheckpointError(
                f"checkpoint {name} is of another architecture ({one} has shape {shape}, this model has "
                f"{list(tensor.shape)}): {advice}"
            )
        saved = sum(math.prod(file.get_slice(one).get_shape()) if shape else 1 for file, _ in pieces[one])
        wanted = math.prod(shape) * (len(pieces[one]) if pieces[one][0][1].own else 1)
        if saved != wanted:
            raise CheckpointError(f"checkpoint {name} has {saved} of the {wanted} numbers of {one}: {advice}")


def _fill(name: str, tensor: torch.Tensor, pieces: list[tuple[Any, Piece]]) -> None:
    """Copy what lies where this rank's part does."""
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
    """A dimension at a time: what two boxes share, as seen from the one and from the other."""
    for a, a_size, b, b_size in zip(mine, my_shape, theirs, their_shape, strict=True):
        start, stop = max(a, b), min(a + a_size, b + b_size)
        yield slice(start - a, stop - a), slice(start - b, stop - b)


def _fill_own(name: str, tensor: torch.Tensor, files: list[Any]) -> None:
    """This rank's own value; the mean of all of them where the number of ranks is another."""
    if len(files) == dist.get_world_size():
        tensor.copy_(files[dist.get_rank()].get_tensor(name))
    elif tensor.is_floating_point():
        tensor.copy_(torch.stack([file.get_tensor(name).double() for file in files]).mean(dim=0))
    else:
        tensor.copy_(files[0].get_tensor(name))


def _own_sums(sums: list[list[float]]) -> list[float]:
    """This rank's sums; an equal share of all of them where the number of ranks is another."""
    world_size = dist.get_world_size()
    if len(sums) == world_size:
        return sums[dist.get_rank()]
    return [sum(column) / world_size for column in zip(*sums, strict=True)]
