"""One model, laid out in five ways over two real gloo ranks."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from train.config import TrainConfig
from train.config_checks import TrainConfigError
from train.strategies.strategy import STRATEGIES

WAYS = ["ddp", "fsdp", "fsdp-whole", "zero1", "zero2", "zero3"]
TOLERANCE = 1e-5
"""Of a loss of about 1.2, over 48 updates; seen was 1.5e-6."""
WEIGHTS_TOLERANCE = 1e-3
"""Of a weight; keys' biases have a gradient of nothing but rounding, which AdamW makes large. Seen was 1.7e-4."""


def weights(folder: Path, file: str = "model.safetensors") -> dict[str, np.ndarray]:
    return safetensors.numpy.load((folder / file).read_bytes())


def furthest(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> float:
    assert one.keys() == other.keys()
    return max(float(np.abs(one[name] - other[name]).max()) for name in one)


@pytest.mark.parametrize("way", WAYS)
def test_every_strategy_has_the_same_loss_over_48_updates(strategies: Any, way: str) -> None:
    expected, found = (strategies.results[f"long-{one}"] for one in ("ddp", way))
    assert found["step"] == 48
    assert found["losses"] == pytest.approx(expected["losses"], abs=TOLERANCE)
    for row, other in zip(found["history"], expected["history"], strict=True):
        assert row["validation_loss"] == pytest.approx(other["validation_loss"], abs=TOLERANCE)
    assert furthest(*(weights(strategies.folder / f"long-{one}") for one in ("ddp", way))) < WEIGHTS_TOLERANCE


@pytest.mark.parametrize("way", WAYS)
def test_accumulation_mixup_average_and_layer_decay_mean_the_same_everywhere(
    strategies: Any, way: str
) -> None:
    expected, found = (strategies.results[f"all-{one}"] for one in ("ddp", way))
    assert found["losses"] == pytest.approx(expected["losses"], abs=TOLERANCE)
    for row, other in zip(found["history"], expected["history"], strict=True):
        assert row == pytest.approx(other, abs=TOLERANCE)
    for file in ("model.safetensors", "average.safetensors"):
        assert (
            furthest(*(weights(strategies.folder / f"all-{one}", file) for one in ("ddp", way)))
            < WEIGHTS_TOLERANCE
        )


@pytest.mark.parametrize("way", WAYS)
def test_a_killed_run_ends_with_the_same_bits_whoever_holds_what(strategies: Any, way: str) -> None:
    expected, found = (strategies.results[f"{one}-{way}"] for one in ("all", "killed"))
    assert len(found["losses"]) == 4
    assert found["history"] == expected["history"]
    whole, resumed = (
        strategies.folder / f"{one}-{way}" / "checkpoints" / result["checkpoint"]
        for one, result in (("all", expected), ("killed", found))
    )
    assert len(list(whole.iterdir())) == 6  # two ranks, progress, weights, average, commit
    assert [
        one.name for one in whole.iterdir() if one.read_bytes() != (resumed / one.name).read_bytes()
    ] == []
    for file in ("model.safetensors", "average.safetensors"):
        one, other = (weights(strategies.folder / f"{run}-{way}", file) for run in ("all", "killed"))
        assert furthest(one, other) == 0


def test_the_average_is_another_model_than_the_last_weights(strategies: Any) -> None:
    folder = strategies.folder / "all-ddp"
    assert furthest(weights(folder), weights(folder, "average.safetensors")) > 0
    assert not (strategies.folder / "long-ddp" / "average.safetensors").exists()


@pytest.mark.parametrize("other", ["whole", "uneven"])
def test_microbatches_change_no_gradient(strategies: Any, other: str) -> None:
    """Without dropout in between, whose masks are drawn a microbatch at a time."""
    expected, found = strategies.results["micro"], strategies.results[other]
    assert found["losses"] == pytest.approx(expected["losses"], abs=TOLERANCE)
    assert furthest(*(weights(strategies.folder / one) for one in ("micro", other))) < WEIGHTS_TOLERANCE


@pytest.mark.parametrize("way", WAYS)
def test_bfloat16_stays_near_float32(strategies: Any, way: str) -> None:
    expected, found = (strategies.results[one]["history"] for one in ("plain", f"half-{way}"))
    for row, other in zip(found, expected, strict=True):
        assert row["train_loss"] == pytest.approx(other["train_loss"], abs=0.02)
        assert row["train_loss"] != other["train_loss"]
    saved = weights(strategies.folder / f"half-{way}")
    assert {one.dtype for one in saved.values()} == {np.dtype("float32")}
    assert any(np.any(one != one.astype(np.float16)) for one in saved.values())  # more than halves hold


@pytest.mark.parametrize("way", ["ddp", "fsdp"])
def test_a_run_with_everything_on_goes_on_with_fewer_ranks(strategies: Any, way: str) -> None:
    expected, found = (strategies.results[one]["history"] for one in ("micro", f"fewer-{way}"))
    for row, other in zip(found, expected, strict=True):
        assert row["train_loss"] == pytest.approx(other["train_loss"], abs=1e-4)
        assert row["validation_loss"] == pytest.approx(other["validation_loss"], abs=1e-4)


def test_running_statistics_in_bfloat16_are_refused(strategies: Any) -> None:
    assert "levit_128s has running statistics" in strategies.results["norms"]


def test_there_is_a_strategy_for_each_name_that_the_configuration_takes() -> None:
    for name in STRATEGIES:
        assert TrainConfig(strategy=name).strategy == name
    with pytest.raises(TrainConfigError, match="strategy is one of ddp, fsdp, deepspeed, got 'horovod'"):
        TrainConfig(strategy="horovod")  # type: ignore[arg-type]


def test_deepspeed_refuses_the_state_of_another_number_of_workers(strategies: Any) -> None:
    assert "is of 2 workers, these are 1" in strategies.results["ranks"]
    assert "\n" not in strategies.results["ranks"]
