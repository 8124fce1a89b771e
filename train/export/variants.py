"""Measures a trained model in its several forms – PyTorch, ONNX, INT8 – on the same images.

`train.export.export` calls it with the splits; the table goes into the cards. Knows neither releases nor the
object store.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from data.dataset.versions import SplitTable
from data.imaging.preprocess import PixelConfig, to_model_input
from train.metrics.bootstrap import share

TORCH, FLOAT32, DYNAMIC, STATIC = "torch", "onnx-float32", "onnx-int8-dynamic", "onnx-int8-static"
Forward = Callable[[np.ndarray], np.ndarray]
"""Model inputs x_NCHW → raw outputs, (N, K)."""
BATCH = 64
WARM_UP = 5


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One form of the model; differences are to PyTorch's answers on the same test images."""

    name: str
    bytes: int
    """Of its weights or its graph."""
    latency_ms: float
    """Median for one image at a time, milliseconds, on an otherwise idle core."""
    accuracy: float
    """On the test split."""
    accuracy_loss: float
    """PyTorch's accuracy minus this one's, image by image."""
    accuracy_loss_at_most: float
    """Upper end of its 95 % bootstrap interval over patients."""
    largest_logit_difference: float
    same_label: float
    """Share of test images with PyTorch's label."""
    validation_accuracy: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def batched(forward: Forward, pixels_NHW: np.ndarray, config: PixelConfig) -> np.ndarray:
    """Compute raw outputs for stored pixels, batch by batch."""
    starts = range(0, len(pixels_NHW), BATCH)
    return np.concatenate(
        [forward(to_model_input(pixels_NHW[start : start + BATCH], config)) for start in starts]
    )


def of_torch(model: torch.nn.Module) -> Forward:
    @torch.inference_mode()
    def forward(inputs_NCHW: np.ndarray) -> np.ndarray:
        return model(torch.from_numpy(inputs_NCHW)).float().numpy()

    return forward


def measure(
    forwards: Mapping[str, Forward],
    sizes: Mapping[str, int],
    *,
    validation: SplitTable,
    test: SplitTable,
    pixels: PixelConfig,
    latency_runs: int,
) -> list[Variant]:
    """Measure one row for each form; the first one is the reference of the others.

    The caller has limited torch and ONNX Runtime to one thread.
    """
    latencies = latency_ms(forwards, to_model_input(test.pixels_NHW[:1], pixels), latency_runs)
    reference = next(iter(forwards))
    logits_by = {name: batched(forward, test.pixels_NHW, pixels) for name, forward in forwards.items()}
    rows = []
    for name, forward in forwards.items():
        answers_N = batched(forward, validation.pixels_NHW, pixels).argmax(axis=1)
        loss = accuracy_loss(logits_by[reference], logits_by[name], test.labels_N, test.groups)
        rows.append(
            Variant(
                name=name,
                bytes=sizes[name],
                latency_ms=round(latencies[name], 3),
                accuracy=float((logits_by[name].argmax(axis=1) == test.labels_N).mean()),
                accuracy_loss=loss[0],
                accuracy_loss_at_most=loss[1],
                largest_logit_difference=float(np.abs(logits_by[name] - logits_by[reference]).max()),
                same_label=float(
                    (logits_by[name].argmax(axis=1) == logits_by[reference].argmax(axis=1)).mean()
                ),
                validation_accuracy=float((answers_N == validation.labels_N).mean()),
            )
        )
    return rows


def accuracy_loss(
    reference_NK: np.ndarray, other_NK: np.ndarray, labels_N: np.ndarray, groups: Sequence[str]
) -> tuple[float, float]:
    """Compute the loss of accuracy on these images, and its upper 95 % bound over patients."""
    right_N, other_N = (logits_NK.argmax(axis=1) == labels_N for logits_NK in (reference_NK, other_NK))
    lost = share(right_N.astype(np.float64) - other_N, groups)
    return lost.value, lost.high


def latency_ms(forwards: Mapping[str, Forward], image_1CHW: np.ndarray, runs: int) -> dict[str, float]:
    """Measure the median milliseconds of processor time for one image, all forms taking turns.

    With one thread that is the latency on an idle core, also where other work keeps the machine busy.
    """
    times: dict[str, list[float]] = {name: [] for name in forwards}
    for nth in range(WARM_UP + runs):
        for name, forward in forwards.items():
            started_s = time.process_time()
            forward(image_1CHW)
            if nth >= WARM_UP:
                times[name].append((time.process_time() - started_s) * 1000)
    return {name: statistics.median(durations) for name, durations in times.items()}


def better_int8(rows: Sequence[Variant], largest_loss: float) -> Variant:
    """Choose the INT8 form for the edge: the fastest that keeps validation accuracy, else the most accurate.

    The test split has no say in it.
    """
    reference = rows[0].validation_accuracy
    candidates = [row for row in rows if row.name in (DYNAMIC, STATIC)]
    accurate = [row for row in candidates if reference - row.validation_accuracy <= largest_loss]
    if accurate:
        return min(accurate, key=lambda row: row.latency_ms)
    return max(candidates, key=lambda row: row.validation_accuracy)


def table(rows: Sequence[Variant]) -> str:
    """Format the rows as Markdown."""
    head = (
        "| variant | MB | ms an image, one core | test accuracy | loss, at most | same label | largest logit gap |"
        "\n|---|---|---|---|---|---|---|\n"
    )
    return head + "".join(
        f"| {row.name} | {row.bytes / 1e6:.2f} | {row.latency_ms:.2f} | {row.accuracy:.4f} | "
        f"{row.accuracy_loss:.4f}, {row.accuracy_loss_at_most:.4f} | {row.same_label:.4f} | "
        f"{row.largest_logit_difference:.2g} |\n"
        for row in rows
    )
