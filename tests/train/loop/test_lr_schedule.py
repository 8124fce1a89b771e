import pytest

from train.config import OptimConfig
from train.loop.lr_schedule import learning_rate

CONFIG = OptimConfig(learning_rate=1.0, warmup_share=0.1, final_share=0.01)


def test_the_rate_rises_to_its_peak_and_falls_to_its_last_value() -> None:
    rates = [learning_rate(step, 100, CONFIG) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == rates[10] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] == pytest.approx(0.01)


def test_a_run_of_one_step_has_a_rate() -> None:
    assert learning_rate(0, 1, CONFIG) > 0
