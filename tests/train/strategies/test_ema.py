import pytest
import torch

from train.strategies.ema import Average, decay_at


class Alone:
    """A strategy of one process: what the average needs of it."""

    def __init__(self) -> None:
        self.module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
        self.adopted = 0

    def master_weights(self) -> dict[str, torch.Tensor]:
        named = {name: one.detach() for name, one in self.module.named_parameters()}
        return named | {name: one for name, one in self.module.named_buffers() if one.is_floating_point()}

    def load_masters(self) -> None:
        self.adopted += 1


def test_the_average_is_the_one_of_its_formula() -> None:
    strategy = Alone()
    average = Average(strategy, decay=0.9)  # type: ignore[arg-type]
    expected = strategy.master_weights()["0.weight"].clone()
    for step in range(200):
        with torch.no_grad():
            strategy.module[0].weight.copy_(torch.full((2, 3), float(step)))
            strategy.module[1].running_mean.fill_(float(step))
        average.follow(step)
        kept = min(0.9, (1 + step) / (10 + step))
        expected = kept * expected + (1 - kept) * step
    assert torch.allclose(average.average["0.weight"], expected, rtol=1e-5)
    assert average.average["1.running_mean"][0] == pytest.approx(float(expected[0, 0]), rel=1e-4)
    assert average.average["0.weight"][0, 0] < 195  # it lags behind


def test_the_weights_come_back_to_the_bit_also_after_an_error() -> None:
    strategy = Alone()
    average = Average(strategy, decay=0.5)  # type: ignore[arg-type]
    with torch.no_grad():
        strategy.module[0].weight.mul_(1.1)
    own, mean = strategy.module[0].weight.clone(), average.average["0.weight"].clone()
    seen: list[torch.Tensor] = []
    with pytest.raises(ZeroDivisionError), average.in_place():
        seen.append(strategy.module[0].weight.clone() / (1 // len(seen)))
    with average.in_place():
        assert torch.equal(strategy.module[0].weight, mean)
    assert torch.equal(strategy.module[0].weight, own)
    assert torch.equal(average.average["0.weight"], mean)
    assert strategy.adopted == 4


def test_an_average_holds_what_belongs_to_the_state_and_what_ranks_have_for_themselves() -> None:
    average = Average(Alone(), decay=0.5)  # type: ignore[arg-type]
    assert "ema.0.weight" in average.tensors()
    assert len(average.buffers()) == 2  # mean and variance


def test_the_first_steps_are_forgotten_fast() -> None:
    assert decay_at(0, 0.999) == pytest.approx(0.1)
    assert decay_at(1_000_000, 0.999) == 0.999
