"""A report of ninety random answers, shared by the tests of metrics."""

import numpy as np
import pytest

from tests.train.metrics.samples import COUNT, sample
from train.metrics import report


@pytest.fixture(scope="module")
def built() -> report.Report:
    return sample(np.arange(COUNT) % 3)
