"""What the statistics of a rollout look at: first attempts, mirrored pairs, physicians' opinions.

`Evidence.observe` takes them in the order in which they were recorded. A request counts for the version that it was
assigned to and for that version's attempt alone: the champion's answer after a canary failed is no observation, since
no draw brought that request to the champion; neither is a request that an operator's header sent to a version.
Inside they are columns of numbers, in which a minute of traffic is judged at once.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from serve.patients import key_of

Arm = Literal["canary", "champion"]
Outcome = Literal["ok", "model_error", "invalid_output", "deadline", "infrastructure"]


def _checked(*, at: float, arm: str = "canary", share: float = 0.0) -> None:
    if not math.isfinite(at):
        raise ValueError(f"the time of an observation is {at}, not seconds since the epoch")
    if arm not in get_args(Arm):
        raise ValueError(f"the arm of an observation is {arm!r}, neither canary nor champion")
    if not 0 <= share <= 1:
        raise ValueError(f"the canary's share is {share}, not within 0..1")


@dataclass(frozen=True, kw_only=True)
class Observation:
    """The first attempt of one request, by the version that its key was drawn to."""

    at: float
    """Seconds since the epoch."""
    arm: Arm
    share: float
    """The probability with which the key was drawn to the canary when it was: the canary's weight over canary's and
    champion's. At 0 and at 1 there is nothing concurrent to compare with."""
    outcome: Outcome
    patient: str | None = None
    """Pseudonym, or what else made the request sticky; None: a patient of its own."""
    incident: str | None = None
    """For `infrastructure`: the death it was part of, so that it counts once."""
    latency_ms: float | None = None
    abstained: bool = False
    label: str | None = None
    """The most probable class; None where there is no answer."""

    def __post_init__(self) -> None:
        _checked(at=self.at, arm=self.arm, share=self.share)
        if self.outcome not in get_args(Outcome):
            raise ValueError(f"the outcome {self.outcome!r} is none of {', '.join(get_args(Outcome))}")
        if (self.outcome == "infrastructure") != (self.incident is not None):
            raise ValueError("an infrastructure failure, and nothing else, names its incident")
        if self.latency_ms is not None and not 0 <= self.latency_ms < math.inf:
            raise ValueError(f"the latency is {self.latency_ms} ms")


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One image shown to both versions; pairs in which infrastructure failed are left out."""

    at: float
    patient: str | None = None
    canary_failed: bool = False
    champion_failed: bool = False
    agree: bool | None = None
    """Whether both gave the same label; None when one of them failed."""

    def __post_init__(self) -> None:
        _checked(at=self.at)
        if (self.agree is None) != (self.canary_failed or self.champion_failed):
            raise ValueError("a pair agrees or not exactly when both versions answered")


@dataclass(frozen=True, kw_only=True)
class Opinion:
    """A physician's verdict on one answer."""

    at: float
    arm: Arm
    share: float
    """As it was when the request was assigned."""
    agrees: bool
    patient: str | None = None

    def __post_init__(self) -> None:
        _checked(at=self.at, arm=self.arm, share=self.share)


@dataclass(frozen=True, kw_only=True)
class Requests:
    """Observations as columns."""

    at_N: np.ndarray
    canary_N: np.ndarray
    share_N: np.ndarray
    patient_N: np.ndarray
    """Keys of `serve.patients`."""
    error_N: np.ndarray
    invalid_N: np.ndarray
    abstained_N: np.ndarray
    incident_N: np.ndarray
    """Keys of incidents, 0 for none."""
    late_N: np.ndarray
    """Past the deadline: slow, whatever the bound."""
    latency_N: np.ndarray
    """Milliseconds, not a number when unknown."""
    label_N: np.ndarray
    """Place of the label among the known ones, -1 for none."""

    @classmethod
    def of(cls, observations: Sequence[Observation], labels: Sequence[str]) -> "Requests":
        outcomes = [one.outcome for one in observations]
        return cls(
            at_N=np.array([one.at for one in observations], float),
            canary_N=np.array([one.arm == "canary" for one in observations], bool),
            share_N=np.array([one.share for one in observations], float),
            patient_N=np.array([key_of(one.patient) for one in observations], np.int64),
            error_N=np.array([one in ("model_error", "deadline") for one in outcomes], bool),
            invalid_N=np.array([one == "invalid_output" for one in outcomes], bool),
            abstained_N=np.array([one.abstained for one in observations], bool),
            incident_N=np.array([key_of(one.incident) for one in observations], np.int64),
            late_N=np.array([one == "deadline" for one in outcomes], bool),
            latency_N=np.array(
                [np.nan if one.latency_ms is None else one.latency_ms for one in observations], float
            ),
            label_N=np.array([_place(one.label, labels) for one in observations], np.int64),
        )

    def __len__(self) -> int:
        return len(self.at_N)

    def __getitem__(self, rows: slice | np.ndarray) -> "Requests":
        return Requests(**{name: getattr(self, name)[rows] for name in self.__dataclass_fields__})


def _place(label: str | None, labels: Sequence[str]) -> int:
    if label is None:
        return -1
    if label not in labels:
        raise ValueError(f"the label {label!r} is none of {', '.join(labels)}")
    return labels.index(label)


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Pairs as columns."""

    at_N: np.ndarray
    patient_N: np.ndarray
    canary_failed_N: np.ndarray
    champion_failed_N: np.ndarray
    disagree_N: np.ndarray

    @classmethod
    def of(cls, pairs: Sequence[Pair]) -> "Pairs":
        return cls(
            at_N=np.array([one.at for one in pairs], float),
            patient_N=np.array([key_of(one.patient) for one in pairs], np.int64),
            canary_failed_N=np.array([one.canary_failed for one in pairs], bool),
            champion_failed_N=np.array([one.champion_failed for one in pairs], bool),
            disagree_N=np.array([one.agree is False for one in pairs], bool),
        )

    def __len__(self) -> int:
        return len(self.at_N)

    def __getitem__(self, rows: slice | np.ndarray) -> "Pairs":
        return Pairs(**{name: getattr(self, name)[rows] for name in self.__dataclass_fields__})
