"""What the statistics of a rollout look at: first attempts, mirrored pairs, physicians' feedback.

`Evidence.observe` takes them in the order in which they were recorded. A request counts for the version that it was
assigned to and for that version's attempt alone: the champion's answer after a canary failed is no observation, since
no draw brought that request to the champion; neither is a request that an operator's header sent to a version.
Inside they are columns of numbers, by which a minute of traffic is judged at once. The rows of the ledger become
observations here as well.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, Self, get_args

import numpy as np

from serve.canary.seen_patients import key_of

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
class MirroredPair:
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
class PhysicianFeedback:
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
class Columns:
    """Observations of one kind as columns, which can be cut like a list."""

    at_N: np.ndarray

    def __len__(self) -> int:
        return len(self.at_N)

    def __getitem__(self, rows: slice | np.ndarray) -> Self:
        return replace(self, **{column.name: getattr(self, column.name)[rows] for column in fields(self)})


@dataclass(frozen=True, kw_only=True)
class Requests(Columns):
    """First attempts as columns."""

    canary_N: np.ndarray
    share_N: np.ndarray
    patient_N: np.ndarray
    """Keys of `serve.canary.seen_patients`."""
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
        outcomes = [request.outcome for request in observations]
        latencies = [np.nan if request.latency_ms is None else request.latency_ms for request in observations]
        return cls(
            at_N=np.array([request.at for request in observations], float),
            canary_N=np.array([request.arm == "canary" for request in observations], bool),
            share_N=np.array([request.share for request in observations], float),
            patient_N=np.array([key_of(request.patient) for request in observations], np.int64),
            error_N=np.array([outcome in ("model_error", "deadline") for outcome in outcomes], bool),
            invalid_N=np.array([outcome == "invalid_output" for outcome in outcomes], bool),
            abstained_N=np.array([request.abstained for request in observations], bool),
            incident_N=np.array([key_of(request.incident) for request in observations], np.int64),
            late_N=np.array([outcome == "deadline" for outcome in outcomes], bool),
            latency_N=np.array(latencies, float),
            label_N=np.array([_place(request.label, labels) for request in observations], np.int64),
        )


def _place(label: str | None, labels: Sequence[str]) -> int:
    if label is None:
        return -1
    if label not in labels:
        raise ValueError(f"the label {label!r} is none of {', '.join(labels)}")
    return labels.index(label)


@dataclass(frozen=True, kw_only=True)
class Pairs(Columns):
    """Mirrored pairs as columns."""

    patient_N: np.ndarray
    canary_failed_N: np.ndarray
    champion_failed_N: np.ndarray
    disagree_N: np.ndarray

    @classmethod
    def of(cls, pairs: Sequence[MirroredPair]) -> "Pairs":
        return cls(
            at_N=np.array([pair.at for pair in pairs], float),
            patient_N=np.array([key_of(pair.patient) for pair in pairs], np.int64),
            canary_failed_N=np.array([pair.canary_failed for pair in pairs], bool),
            champion_failed_N=np.array([pair.champion_failed for pair in pairs], bool),
            disagree_N=np.array([pair.agree is False for pair in pairs], bool),
        )


@dataclass(frozen=True, kw_only=True)
class Feedback(Columns):
    """Physicians' feedback as columns."""

    canary_N: np.ndarray
    share_N: np.ndarray
    patient_N: np.ndarray
    corrected_N: np.ndarray

    @classmethod
    def of(cls, feedback: Sequence[PhysicianFeedback]) -> "Feedback":
        return cls(
            at_N=np.array([verdict.at for verdict in feedback], float),
            canary_N=np.array([verdict.arm == "canary" for verdict in feedback], bool),
            share_N=np.array([verdict.share for verdict in feedback], float),
            patient_N=np.array([key_of(verdict.patient) for verdict in feedback], np.int64),
            corrected_N=np.array([not verdict.agrees for verdict in feedback], bool),
        )


# ---- from rows of the ledger


def first_attempts(
    rows: Iterable[Mapping[str, Any]], *, model: str, canary: str, champion: str
) -> list[Observation]:
    """Read what rows of `serve.ledger.reader` say about two versions: each request's first attempt, in order.

    An operator's own choice of a version is left out, as no draw brought that request to it.
    """
    observations = (_first_attempt(row, canary, champion) for row in rows if row["model"] == model)
    return [observation for observation in observations if observation is not None]


def _first_attempt(row: Mapping[str, Any], canary: str, champion: str) -> Observation | None:
    assignment, first = row["assignment"], row["attempts"][0]
    version, weights = assignment["version"], assignment["weights"]
    if assignment["key"] == "operator" or version not in (canary, champion):
        return None
    canary_weight, champion_weight = weights.get(canary), weights.get(champion, 0.0)
    if canary_weight is None or canary_weight + champion_weight <= 0:
        return None
    answered = first["outcome"] == "ok"
    return Observation(
        at=row["created_at"].timestamp(),
        arm="canary" if version == canary else "champion",
        share=canary_weight / (canary_weight + champion_weight),
        outcome=first["outcome"],
        patient=_patient(row),
        incident=first.get("incident"),
        latency_ms=first["latency_ms"],
        abstained=bool(answered and row["abstained"]),
        label=row["label"] if answered else None,
    )


def _patient(row: Mapping[str, Any]) -> str | None:
    """Return the key under which requests are correlated: the patient, or the study of an unnamed patient."""
    pseudonym: str | None = row["patient_pseudonym"] or row["assignment"].get("study")
    return pseudonym


def mirrored_pairs(
    rows: Iterable[Mapping[str, Any]], *, model: str, canary: str, champion: str
) -> list[MirroredPair]:
    """Read mirrored images that were drawn to the champion and shown to the canary too.

    Those in which infrastructure failed are left out, and those that an operator sent to a version: any number of
    them may be one image.
    """
    pairs = (_mirrored_pair(row, canary, champion) for row in rows if row["model"] == model)
    return [pair for pair in pairs if pair is not None]


def _mirrored_pair(row: Mapping[str, Any], canary: str, champion: str) -> MirroredPair | None:
    served, shown = row["served"], row["shown"]
    drawn = row["assignment"]["version"] == served["version"] == champion
    if row["assignment"]["key"] == "operator" or not drawn or shown["version"] != canary:
        return None
    if "infrastructure" in (served["outcome"], shown["outcome"]):
        return None
    canary_failed, champion_failed = shown["outcome"] != "ok", served["outcome"] != "ok"
    both = not (canary_failed or champion_failed)
    return MirroredPair(
        at=row["created_at"].timestamp(),
        patient=_patient(row),
        canary_failed=canary_failed,
        champion_failed=champion_failed,
        agree=served["label"] == shown["label"] if both else None,
    )
