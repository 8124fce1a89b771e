"""The export benchmarks measure on one core and give the others back."""

import os
import time

import numpy as np
import pytest

from jobs.bench import export


def test_images_a_core_second_are_counted_on_one_core_and_the_others_come_back() -> None:
    class Model:
        def __init__(self, seconds: float) -> None:
            self.seconds = seconds
            self.cores: set[int] = set()

        def logits(self, inputs_NCHW: np.ndarray) -> np.ndarray:
            self.cores |= os.sched_getaffinity(0)
            end_s = time.process_time() + self.seconds
            while time.process_time() < end_s:
                pass
            return inputs_NCHW

    before = os.sched_getaffinity(0)
    models = {"slow": Model(0.02), "fast": Model(0.005)}
    rates = export.images_per_core_s(models, np.zeros((4, 1, 2, 2), np.float32))
    assert rates["slow"] == pytest.approx(200, rel=0.2)
    assert rates["fast"] == pytest.approx(800, rel=0.2)
    assert all(len(one.cores) == 1 for one in models.values())
    assert os.sched_getaffinity(0) == before
