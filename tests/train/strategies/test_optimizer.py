"""AdamW over named parameters: rates, clipping, state."""

import pytest
import torch

from train.config import ModelConfig, OptimConfig
from train.strategies.optimizer import KINDS, NamedAdamW, begin, copied, set_rates
from train.vit.model import build_vit

MODEL = ModelConfig(name="vit_tiny_patch16_224", kwargs={"depth": 1})


@pytest.fixture
def optimizer() -> NamedAdamW:
    torch.manual_seed(0)
    model = build_vit(MODEL, classes=3, side=32)
    return NamedAdamW(model, OptimConfig(clip_norm=0.5), torch.device("cpu"))


def test_gradients_are_clipped_to_the_norm_and_the_norm_before_is_told(optimizer: NamedAdamW) -> None:
    parameters = list(optimizer.module.parameters())
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    count = sum(parameter.numel() for parameter in parameters)
    assert optimizer._clip() == pytest.approx(count**0.5, rel=1e-5)
    squares = sum(
        float(parameter.grad.square().sum()) for parameter in parameters if parameter.grad is not None
    )
    assert squares**0.5 == pytest.approx(0.5, rel=1e-3)


def test_a_norm_that_is_no_number_changes_no_weight(optimizer: NamedAdamW) -> None:
    before = {name: weights.clone() for name, weights in optimizer.master_weights().items()}
    for parameter in optimizer.module.parameters():
        parameter.grad = torch.full_like(parameter, float("nan"))
    norm = optimizer.update(0.1)
    assert norm != norm
    assert all(torch.equal(weights, before[name]) for name, weights in optimizer.master_weights().items())


def test_the_state_has_every_parameter_by_its_name(optimizer: NamedAdamW) -> None:
    tensors = optimizer.tensors()
    for name, parameter in optimizer.module.named_parameters():
        assert tensors[f"optimizer.exp_avg.{name}"].shape == parameter.shape
    assert {key.split(".")[1] for key in tensors if key.startswith("optimizer.")} == set(KINDS)


def test_a_group_has_its_share_of_the_rate() -> None:
    weight = torch.nn.Parameter(torch.ones(2))
    other = torch.nn.Parameter(torch.ones(2))
    adam = torch.optim.AdamW([{"params": [weight], "lr_scale": 0.5}, {"params": [other]}])
    set_rates(adam, 0.1)
    assert [group["lr"] for group in adam.param_groups] == [0.05, 0.1]
    assert begin(adam, weight)["step"] == 0


def test_a_copy_is_float32_and_shares_no_memory() -> None:
    half = torch.ones(3, dtype=torch.bfloat16)
    copy = copied(half)
    half.zero_()
    assert (copy.dtype, copy.tolist()) == (torch.float32, [1.0, 1.0, 1.0])
    assert copied(torch.tensor([1, 2])).dtype == torch.int64
