"""Fine-tuning in one process on one device, without Ray, store or MLflow: for a notebook, a GPU, a measurement.

from train.llm_alone import learn
weights, progress = learn(LlmConfig(method="lora"), base, pairs, torch.device("cuda"))
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist

from train.checkpoint import Progress
from train.checkpoint_store import Mark
from train.fit import Watch
from train.llm_config import LlmConfig
from train.llm_fit import fit, prepare
from train.llm_tokens import Pair


class NoCheckpoints:
    """Discards checkpoints; implements `train.fit.Checkpoints`."""

    @contextmanager
    def newest(self) -> Iterator[Path | None]:
        yield None

    def commit(self, mark: Mark, write: Callable[[Path], None]) -> None:
        """Discard the checkpoint."""

    def flush(self) -> None:
        """Return at once: nothing is written."""

    def must_leave(self) -> bool:
        return False


@contextmanager
def alone() -> Iterator[None]:
    """Open a process group of one."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


def learn(
    config: LlmConfig, base: Path, pairs: Sequence[Pair], device: torch.device, watch: Watch | None = None
) -> tuple[dict[str, torch.Tensor], Progress]:
    """Fine-tune; return what was learned, by name, and the progress."""
    with alone():
        setup = prepare(config, base, pairs, run="alone", device=device)
        progress = fit(setup, NoCheckpoints(), watch)
        return setup.weights(), progress
