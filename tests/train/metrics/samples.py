"""A report of ninety random answers."""

import numpy as np

from train.metrics import report
from train.metrics.calibration import CalibrationConfig, calibrate
from train.metrics.report import Answered, HeldOut

NAMES = ("normal", "covid19", "tuberculosis")


COUNT = 90


def sample(labels: np.ndarray) -> report.Report:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(COUNT, 3)) + 2 * np.eye(3)[labels]
    groups, nothing = [str(i) for i in range(COUNT)], [None] * COUNT
    answered = Answered(
        logits_NK=logits,
        labels_N=labels,
        groups=groups,
        sources=["clinic"] * COUNT,
        sexes=nothing,
        ages=nothing,
        views=nothing,
    )
    held_out = HeldOut(logits_NK=logits, labels_N=labels, groups=groups)
    return report.build(answered, held_out, NAMES, calibrate(logits, labels, CalibrationConfig()))
