import pytest
import torch

from train.config import ModelConfig, TrainConfig
from train.strategies.collectives import prepare_blocks
from train.strategies.memory_estimate import estimate
from train.vit.model import build_vit

TINY = ModelConfig(name="vit_tiny_patch16_224", kwargs={"depth": 3})


def config(**settings: object) -> TrainConfig:
    return TrainConfig(**{"model": TINY, "batch_size": 8, "strategy": "ddp", **settings})  # type: ignore[arg-type]


def measured(settings: TrainConfig, images: int, side: int) -> int:
    """Bytes that a real forward pass leaves for the backward pass, storage by storage."""
    model = build_vit(settings.model, classes=10, side=side)
    prepare_blocks(model, settings)
    weights = {one.untyped_storage().data_ptr() for one in model.parameters()}
    kept: dict[int, int] = {}

    def keep(one: torch.Tensor) -> torch.Tensor:
        kept[one.untyped_storage().data_ptr()] = one.untyped_storage().nbytes()
        return one

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda one: one):
        outputs = model(torch.zeros(images, 1, side, side))
    assert outputs.requires_grad
    return sum(size for where, size in kept.items() if where not in weights)


@pytest.mark.parametrize("side", [64, 128])
def test_activations_are_those_of_a_real_forward_pass(side: int) -> None:
    found = estimate(config(), classes=10, side=side).activations
    assert found == pytest.approx(measured(config(), images=4, side=side), rel=0.1)


def test_activation_checkpointing_leaves_one_block_and_the_inputs_of_all() -> None:
    settings = config(activation_checkpointing=True)
    whole = estimate(config(), classes=10, side=128).activations
    found = estimate(settings, classes=10, side=128).activations
    assert found == pytest.approx(measured(settings, images=4, side=128) + whole / 3, rel=0.1)
    assert found < whole / 2


def test_what_is_shared_out_is_halved_by_two_workers() -> None:
    whole, halves = (estimate(config(strategy=one), classes=10, side=64) for one in ("ddp", "fsdp"))
    assert (whole.weights, whole.gradients, whole.moments) == tuple(
        4 * whole.parameters * n for n in (1, 1, 2)
    )
    for name in ("weights", "gradients", "moments"):
        assert getattr(halves, name) * 2 == getattr(whole, name)


def test_each_stage_of_zero_shares_out_more() -> None:
    totals = [
        estimate(
            config(model=ModelConfig(), strategy="deepspeed", zero_stage=stage), classes=10, side=64
        ).device
        for stage in (1, 2, 3)
    ]
    assert totals == sorted(totals, reverse=True)
    assert len(set(totals)) == 3


def test_offloading_moves_the_shares_to_the_host() -> None:
    here = estimate(config(strategy="fsdp", use_gpu=True), classes=10, side=64)
    there = estimate(config(strategy="fsdp", use_gpu=True, cpu_offload=True), classes=10, side=64)
    assert there.host == here.device - there.device
    assert there.weights == 0
