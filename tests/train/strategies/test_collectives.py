"""The blocks of a network are prepared for training."""

import torch

from train.config import ModelConfig, OptimConfig, TrainConfig
from train.strategies.collectives import prepare_blocks
from train.vit.families import blocks


def test_activation_checkpointing_and_compile_act_on_the_blocks_alone() -> None:
    from train.vit.model import build_vit

    config = TrainConfig(
        model=ModelConfig(name="vit_tiny_patch16_224", kwargs={"depth": 2}),
        optim=OptimConfig(),
        activation_checkpointing=True,
    )
    model = build_vit(config.model, classes=3, side=32)
    names = list(model.state_dict())
    x_BCHW = torch.randn(2, 1, 32, 32)
    kept: list[int] = []

    def bytes_kept() -> int:
        kept.clear()
        with torch.autograd.graph.saved_tensors_hooks(
            lambda one: kept.append(one.nbytes) or one, lambda x: x
        ):
            model(x_BCHW).sum().backward()
        return sum(kept)

    whole = bytes_kept()
    gradients = [one.grad.clone() for one in model.parameters()]
    model.zero_grad()
    prepare_blocks(model, config)
    assert bytes_kept() < whole / 2
    assert all(
        torch.equal(one.grad, before) for one, before in zip(model.parameters(), gradients, strict=True)
    )
    assert list(model.state_dict()) == names
    assert len(blocks(model, config.model.name)) == 2
