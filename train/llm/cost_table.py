"""Time and memory of a fine-tuning step, each setting measured in a process of its own.

`jobs.finetune_llm --table` prints it. The peak memory of a process only grows, hence the processes.
"""

import multiprocessing
import resource
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import get_args

import torch

from cluster.progress import OnProgress
from train.config import Precision
from train.llm import single_process
from train.llm.config import LlmConfig, Method
from train.llm.fit import prepare
from train.llm.tokenise import Pair
from train.loop.fit import fit
from train.loop.interfaces import TrainingCallbacks

COLUMNS = (
    "method",
    "precision",
    "rows at once x accumulation",
    "learned",
    "checkpoint",
    "s/step",
    "CPU s/step",
)
CPU_METHODS: tuple[Method, ...] = ("full", "lora")
MIB = 2**20
STATE = 3
"""Numbers of a checkpoint for each learned parameter: the weight and AdamW's two moments, float32."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    config: LlmConfig
    learned: int
    """Number of learned parameters."""
    step_s: float
    step_cpu_s: float
    tokens_per_s: float
    peak_memory_mib: float
    peak_gpu_memory_mib: float | None

    @property
    def checkpoint_mib(self) -> float:
        return 4 * STATE * self.learned / MIB


def settings(config: LlmConfig) -> list[LlmConfig]:
    """Return method x precision x accumulation at one global batch; QLoRA has one precision."""
    whole, methods = config.batch_size, get_args(Method) if config.use_gpu else CPU_METHODS
    micros = sorted({whole, 1}, reverse=True)
    return [
        replace(config, method=method, precision=precision, microbatch_size=micro, num_workers=1)
        for method, precision, micro in product(methods, get_args(Precision), micros)
        if (method, precision) != ("qlora", "float32")
    ]


def measure(config: LlmConfig, base: Path, pairs: Sequence[Pair], steps: int) -> Cost:
    """Return the mean over `steps` updates after a warm-up; call it in a process of its own, whose peak it reads."""
    torch.set_num_threads(config.cpus_per_worker)
    device = torch.device("cuda" if config.use_gpu else "cpu")
    rates: list[dict[str, float]] = []
    with single_process.alone():
        context = prepare(config, base, pairs, run="cost", device=device)
        few = replace(
            context, rows=context.rows[: config.batch_size], config=replace(config, epochs=1 + steps)
        )
        callbacks = TrainingCallbacks(epoch=lambda row, speed: rates.append(speed))
        fit(few, single_process.Forgetful(), callbacks)
    measured = rates[1:]  # an epoch is one step here

    def mean(name: str) -> float:
        return sum(row[name] for row in measured) / len(measured)

    return Cost(
        config=config,
        learned=sum(tensor.numel() for tensor in context.weights().values()),
        step_s=mean("step_s"),
        step_cpu_s=mean("step_cpu_s"),
        tokens_per_s=mean("tokens_per_s"),
        peak_memory_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        peak_gpu_memory_mib=measured[-1].get("peak_gpu_memory_mib"),
    )


def table(
    config: LlmConfig,
    base: Path,
    pairs: Sequence[Pair],
    *,
    steps: int,
    progress: OnProgress,
) -> tuple[list[Cost], str]:
    """Measure every setting, one after the other.

    Args:
        progress: called before each with the number measured, the number of all and a note.
    Returns:
        the costs, and a Markdown table of them.
    """
    costs, configs = [], settings(config)
    for nth, setting in enumerate(configs):
        note = f"{setting.method}, {setting.precision}, {setting.microbatch_size} rows at once"
        progress(nth, len(configs), note)
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
            costs.append(process.submit(measure, setting, base, pairs, steps).result())
    return costs, _markdown(costs)


def _markdown(costs: Sequence[Cost]) -> str:
    gpu = costs[0].peak_gpu_memory_mib is not None
    head = [*COLUMNS, "tokens/s", "peak memory MiB", *(["peak GPU memory MiB"] if gpu else [])]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for cost in costs:
        cells = [
            cost.config.method,
            cost.config.precision,
            f"{cost.config.microbatch_size} x {cost.config.accumulation(1)}",
            f"{cost.learned:,}",
            f"{cost.checkpoint_mib:,.1f} MiB",
            f"{cost.step_s:.2f}",
            f"{cost.step_cpu_s:.2f}",
            f"{cost.tokens_per_s:.0f}",
            f"{cost.peak_memory_mib:,.0f}",
            *([f"{cost.peak_gpu_memory_mib:,.0f}"] if cost.peak_gpu_memory_mib is not None else []),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
