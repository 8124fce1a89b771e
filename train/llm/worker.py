"""What a Ray Train worker of `train.runs.worker` needs to fine-tune the language model."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch

from train.llm import fit
from train.llm.config import LlmConfig
from train.llm.model import LlmModelError
from train.llm.nf4 import Nf4Error
from train.llm.tokenise import LlmDataError, Pair
from train.loop.interfaces import Setup
from train.runs.worker import RunInputs


@dataclass(frozen=True, kw_only=True)
class LlmInputs(RunInputs[LlmConfig]):
    """Inputs of a fine-tuning."""

    stage: ClassVar[str] = "finetune"
    loading: ClassVar[str] = "loading the base model"
    unusable: ClassVar[tuple[type[Exception], ...]] = (LlmModelError, LlmDataError, Nf4Error)

    base: Callable[[], AbstractContextManager[Path]]
    """Provides the folder of the base checkpoint for as long as the context lasts."""
    pairs: Sequence[Pair]

    def prepare(self, config: LlmConfig, run: str, device: torch.device) -> Setup:
        with self.base() as folder:
            return fit.prepare(config, folder, self.pairs, run=run, device=device)

    def note(self, loss: float, latest: Mapping[str, float]) -> str:
        return f"loss {loss:.3f}"
