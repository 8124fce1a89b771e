"""What happened since the present step of the ramp began: the counts that a promotion is judged by.

Each patient counts once a step, with the first request, and only while the weights are the step's own.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from serve.latencies import Latencies
from serve.noninferiority import Question, difference, paired, rate
from serve.window import CANARY, CHAMPION

FAULTS = ("errors", "invalid_outputs", "abstentions", "latency")
"""What can be bad about a request; `latency` is to be slow."""


@dataclass(kw_only=True)
class StepCounts:
    number: int
    share: float
    entered_at: float
    requests_A: np.ndarray = field(default_factory=lambda: np.zeros(2, int))
    """Of canary and champion, whatever their weights."""
    over_promote: int = 0
    """Canary requests slower than the P99 that a promotion needs."""
    latencies_A: tuple[Latencies, Latencies] = field(default_factory=lambda: (Latencies(), Latencies()))
    patients_A: np.ndarray = field(default_factory=lambda: np.zeros(2, int))
    bad_AF: np.ndarray = field(default_factory=lambda: np.zeros((2, len(FAULTS)), int))
    """Patients whose first request was bad, by arm and fault."""
    pairs: int = 0
    mirrored: int = 0
    """Pairs of patients that had none before in this step; the figures below are of these."""
    answered: int = 0
    """Those that both versions answered."""
    disagreements: int = 0
    canary_only: int = 0
    """Those that the canary alone failed."""
    champion_only: int = 0

    def question(self, fault: str, margin: float) -> Question:
        """Is the canary's rate of a fault above the champion's by less than `margin`?"""
        canary_bad, champion_bad = (int(one) for one in self.bad_AF[:, FAULTS.index(fault)])
        total = int(self.patients_A.sum())
        return difference(
            fault, margin, self.share, canary_bad=canary_bad, champion_bad=champion_bad, total=total
        )

    def absolute(self, fault: str, bound: float) -> Question:
        """Is the canary's own rate of a fault below `bound`?"""
        bad = int(self.bad_AF[CANARY, FAULTS.index(fault)])
        return rate(fault, bound, bad=bad, total=int(self.patients_A[CANARY]))

    def mirrored_errors(self, margin: float) -> Question:
        return paired(
            "mirrored_errors",
            margin,
            canary_only=self.canary_only,
            champion_only=self.champion_only,
            total=self.mirrored,
        )

    def disagreement(self, bound: float) -> Question:
        return rate("disagreement", bound, bad=self.disagreements, total=self.answered)

    def rate_of(self, fault: str, arm: int) -> float | None:
        """Share of the arm's patients; None without patients."""
        patients = int(self.patients_A[arm])
        return float(self.bad_AF[arm, FAULTS.index(fault)]) / patients if patients else None

    def as_dict(self) -> dict[str, Any]:
        arrays = {"requests_A": self.requests_A, "patients_A": self.patients_A, "bad_AF": self.bad_AF}
        plain = {name: value for name, value in vars(self).items() if name not in {*arrays, "latencies_A"}}
        latencies = [one.as_list() for one in self.latencies_A]
        return {
            **plain,
            **{name: one.tolist() for name, one in arrays.items()},
            "latencies_A": latencies,
        }

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> "StepCounts":
        arrays = {name: np.array(stored[name], int) for name in ("requests_A", "patients_A", "bad_AF")}
        latencies = (
            Latencies.from_list(stored["latencies_A"][CANARY]),
            Latencies.from_list(stored["latencies_A"][CHAMPION]),
        )
        return cls(**{**stored, **arrays, "latencies_A": latencies})
