"""Fine-tune in one process on one device, without Ray, store or MLflow: for a notebook, a GPU, a measurement.

from train.llm.single_process import learn
weights, progress = learn(LlmConfig(method="lora"), base, pairs, torch.device("cuda"))
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist

from train.checkpoints.state import Progress
from train.checkpoints.store import Mark
from train.llm.config import LlmConfig
from train.llm.fit import prepare
from train.llm.tokenise import Pair
from train.loop.fit import fit
from train.loop.interfaces import NO_CALLBACKS, TrainingCallbacks


class Forgetful:
    """Discards checkpoints; implements `train.loop.interfaces.Checkpoints`."""

    @contextmanager
    def newest(self) -> Iterator[Path | None]:
        yield None

    def commit(self, mark: Mark, write: Callable[[Path], None]) -> None:
        """Do nothing."""

    def flush(self) -> None:
        """Return at once."""

    def must_leave(self) -> bool:
        return False


@contextmanager
def alone() -> Iterator[None]:
    """Provide a process group of one."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


def learn(
    config: LlmConfig,
    base: Path,
    pairs: Sequence[Pair],
    device: torch.device,
    callbacks: TrainingCallbacks = NO_CALLBACKS,
) -> tuple[dict[str, torch.Tensor], Progress]:
    """Fine-tune to the last epoch.

    Returns:
        the learned parameters by name, and the progress with its history.
    """
    with alone():
        context = prepare(config, base, pairs, run="alone", device=device)
        progress = fit(context, Forgetful(), callbacks)
        return context.weights(), progress
