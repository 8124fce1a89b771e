import pytest

from jobs.bench.strategies import BATCH, MIB, MODEL, SIDE, fsdp_memory
from train.config import TrainConfig
from train.strategies.memory_estimate import Memory, estimate


def expected(strategy: str) -> Memory:
    config = TrainConfig(model=MODEL, strategy=strategy, batch_size=BATCH)  # type: ignore[arg-type]
    return estimate(config, classes=3, side=SIDE)


def test_fsdp_holds_at_most_six_tenths_of_what_ddp_does_and_as_much_as_is_foretold() -> None:
    figure = fsdp_memory()
    assert figure.ratio <= 0.6
    whole, shares = expected("ddp"), expected("fsdp")
    assert figure.peer * MIB == pytest.approx(whole.weights + whole.gradients + whole.moments, rel=0.01)
    foretold = shares.weights + shares.gradients + shares.moments + shares.gathered
    assert figure.ours * MIB == pytest.approx(foretold, rel=0.1)
