"""A checkpoint store in a folder, and attempts at a run over it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.fs
import pytest
import torch.distributed as dist

from tests.train.checkpoints.stores import Unsteady
from train.checkpoints.manager import RunCheckpoints
from train.checkpoints.store import Retention


@pytest.fixture
def store(tmp_path: Path) -> Unsteady:
    return Unsteady(pyarrow.fs.LocalFileSystem(), str(tmp_path / "checkpoints"))


@pytest.fixture
def begin(tmp_path: Path, store: Unsteady) -> Iterator[Callable[..., RunCheckpoints]]:
    """Start attempts at the run; on one rank."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'group'}", rank=0, world_size=1)
    opened: list[RunCheckpoints] = []

    def start(**options: object) -> RunCheckpoints:
        opened.append(RunCheckpoints(store, Retention(newest=3), **{"patience_s": 20.0, **options}))
        return opened[-1]

    yield start
    for one in opened:
        one.close()
    dist.destroy_process_group()
