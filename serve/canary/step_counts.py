"""Counts since the present step of the ramp began, by which a promotion is judged.

Each patient counts once a step, with the first request, and only while the weights are the step's own.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from serve.canary.guardrails import FAULTS
from serve.canary.latency import LatencyHistogram
from serve.canary.noninferiority import NonInferiorityTest, difference, paired, rate
from serve.canary.sliding_window import CANARY, CHAMPION

ARRAYS = ("requests_A", "patients_A", "bad_AF")


@dataclass(kw_only=True)
class StepCounts:
    number: int
    share: float
    entered_at: float
    requests_A: np.ndarray = field(default_factory=lambda: np.zeros(2, int))
    """Of canary and champion, whatever their weights."""
    over_promote: int = 0
    """Canary requests slower than the P99 that a promotion needs."""
    latencies_A: tuple[LatencyHistogram, LatencyHistogram] = field(
        default_factory=lambda: (LatencyHistogram(), LatencyHistogram())
    )
    patients_A: np.ndarray = field(default_factory=lambda: np.zeros(2, int))
    bad_AF: np.ndarray = field(default_factory=lambda: np.zeros((2, len(FAULTS)), int))
    """Patients whose first request was bad, by arm and fault."""
    pairs: int = 0
    mirrored: int = 0
    """Pairs of patients that had none before in this step; the counts below are of these."""
    answered: int = 0
    """Those that both versions answered."""
    disagreements: int = 0
    canary_only: int = 0
    """Those that the canary alone failed."""
    champion_only: int = 0

    def difference_test(self, fault: str, margin: float) -> NonInferiorityTest:
        """Test whether the canary's rate of a fault is above the champion's by less than `margin`."""
        canary_bad, champion_bad = (int(count) for count in self.bad_AF[:, FAULTS.index(fault)])
        total = int(self.patients_A.sum())
        return difference(
            fault, margin, self.share, canary_bad=canary_bad, champion_bad=champion_bad, total=total
        )

    def rate_test(self, fault: str, bound: float) -> NonInferiorityTest:
        """Test whether the canary's own rate of a fault is below `bound`."""
        return rate(fault, bound, bad=self.bad(fault), total=int(self.patients_A[CANARY]))

    def mirrored_errors_test(self, margin: float) -> NonInferiorityTest:
        return paired(
            "mirrored_errors",
            margin,
            canary_only=self.canary_only,
            champion_only=self.champion_only,
            total=self.mirrored,
        )

    def disagreement_test(self, bound: float) -> NonInferiorityTest:
        return rate("disagreement", bound, bad=self.disagreements, total=self.answered)

    def bad(self, fault: str) -> int:
        """Return how many of the canary's patients met a fault."""
        return int(self.bad_AF[CANARY, FAULTS.index(fault)])

    def rate_of(self, fault: str, arm: int) -> float | None:
        """Return the share of an arm's patients that met a fault; None without patients."""
        patients = int(self.patients_A[arm])
        return float(self.bad_AF[arm, FAULTS.index(fault)]) / patients if patients else None

    def as_dict(self) -> dict[str, Any]:
        arrays = {name: getattr(self, name).tolist() for name in ARRAYS}
        plain = {name: value for name, value in vars(self).items() if name not in {*ARRAYS, "latencies_A"}}
        latencies = [histogram.as_list() for histogram in self.latencies_A]
        return {**plain, **arrays, "latencies_A": latencies}

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> "StepCounts":
        arrays = {name: np.array(stored[name], int) for name in ARRAYS}
        newer = len(FAULTS) - arrays["bad_AF"].shape[1]
        arrays["bad_AF"] = np.pad(arrays["bad_AF"], ((0, 0), (0, newer)))
        latencies = (
            LatencyHistogram.from_list(stored["latencies_A"][CANARY]),
            LatencyHistogram.from_list(stored["latencies_A"][CHAMPION]),
        )
        return cls(**{**stored, **arrays, "latencies_A": latencies})
