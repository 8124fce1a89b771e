"""One attempt of a language model at an explanation, as the ledger stores it.

The controller reads these rows like first attempts at images, so language models are rolled out by the same
statistics. A text that the checker refuses is an invalid output, though the caller was shown the template instead.
"""

import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from serve.absence import unnamed_incident
from serve.attempts import InfrastructureError, Outcome
from serve.record_rows import Explained
from serve.routing import Routes, Target, assign


@dataclass(kw_only=True)
class ExplanationAttempt:
    """An attempt that is under way."""

    prediction_id: uuid.UUID
    model: str
    target: Target
    patient_pseudonym: str | None
    assignment: dict[str, Any]
    began_s: float = field(default_factory=time.monotonic)
    outcome: Outcome = "model_error"
    """Until it ends; a stream without a `done` event is a model error."""
    incident: str | None = None
    latency_ms: float | None = None

    @classmethod
    def about(cls, row: Mapping[str, Any], routes: Routes) -> "ExplanationAttempt":
        """Draw the version that explains a record: sticky by its patient, else its study, else the record itself."""
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

    def heard(self, event: Mapping[str, Any]) -> None:
        """Note an event of the model, see `serve.explanation`; the first one ends the latency."""
        if self.latency_ms is None:
            self.latency_ms = self._since_ms()
        if event["event"] == "done":
            self.outcome = "invalid_output" if event["explanation"]["fallback"] else "ok"

    def failed(self, error: Exception) -> None:
        """Note an error that ended the attempt."""
        if isinstance(error, TimeoutError):
            self.outcome = "deadline"
        elif isinstance(error, InfrastructureError):
            self.outcome = "infrastructure"
            self.incident = error.incident or unnamed_incident(self.target.version)
        self.latency_ms = self._since_ms()

    def as_record(self) -> Explained:
        attempt: dict[str, Any] = {"version": self.target.version, "outcome": self.outcome}
        attempt["latency_ms"] = round(self._since_ms() if self.latency_ms is None else self.latency_ms, 2)
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

    def _since_ms(self) -> float:
        return (time.monotonic() - self.began_s) * 1000
