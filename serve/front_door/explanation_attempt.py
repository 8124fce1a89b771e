"""One attempt of a language model at an explanation, as the ledger stores it: which version, and how it ended.

The controller reads these rows like first attempts at images, so that language models are rolled out by the same
statistics. A text that the checker refuses is an invalid output, though the caller sees the template instead.
"""

import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from serve.front_door.attempts import InfrastructureError, Outcome
from serve.front_door.replica_outage import unnamed_incident
from serve.ledger.rows import Explained
from serve.routing.routes import Routes, Target, assign


@dataclass(kw_only=True)
class ExplanationAttempt:
    """An attempt in progress."""

    prediction_id: uuid.UUID
    model: str
    target: Target
    patient_pseudonym: str | None
    assignment: dict[str, Any]
    began_s: float = field(default_factory=time.monotonic)
    outcome: Outcome = "model_error"
    """Of a stream that ends without `done`, and until one ends."""
    incident: str | None = None
    latency_ms: float | None = None

    @classmethod
    def assign(cls, row: Mapping[str, Any], routes: Routes) -> "ExplanationAttempt":
        """Assign the version that explains a record: sticky by its patient, else its study, else the record itself."""
        study = row["assignment"].get("study")
        key = row["patient_pseudonym"] or study or str(row["id"])
        target = assign(routes, key)
        kind = "patient" if row["patient_pseudonym"] else "study" if study else "request"
        return cls(
            prediction_id=row["id"],
            model=routes.model,
            target=target,
            patient_pseudonym=row["patient_pseudonym"],
            assignment={
                "key": kind,
                **({"study": study} if kind == "study" else {}),
                "version": target.version,
                "arm": target.role,
                "weights": routes.weights,
                "revision": routes.revision,
            },
        )

    def record_event(self, event: Mapping[str, Any]) -> None:
        """Take one event of the model, see `serve.explanation.explanation`; the latency is the time to the
        first one.
        """
        if self.latency_ms is None:
            self.latency_ms = self._elapsed_ms()
        if event["event"] == "done":
            self.outcome = "invalid_output" if event["explanation"]["fallback"] else "ok"

    def record_error(self, error: Exception) -> None:
        """Take the error with which the stream ended in place of `done`."""
        if isinstance(error, TimeoutError):
            self.outcome = "deadline"
        elif isinstance(error, InfrastructureError):
            self.outcome = "infrastructure"
            self.incident = error.incident or unnamed_incident(self.target.version)
        self.latency_ms = self._elapsed_ms()

    def as_record(self) -> Explained:
        attempt: dict[str, Any] = {"version": self.target.version, "outcome": self.outcome}
        attempt["latency_ms"] = round(self._elapsed_ms() if self.latency_ms is None else self.latency_ms, 2)
        if self.incident is not None:
            attempt["incident"] = self.incident
        return Explained(
            id=uuid.uuid4(),
            prediction_id=self.prediction_id,
            model=self.model,
            patient_pseudonym=self.patient_pseudonym,
            assignment=self.assignment,
            attempts=[attempt],
        )

    def _elapsed_ms(self) -> float:
        return (time.monotonic() - self.began_s) * 1000
