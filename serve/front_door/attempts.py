"""Ask the assigned version, and on failure the champion, within one deadline.

A client therefore never sees a canary that fails, is slow or returns nonsense. The outcome of each attempt goes to
the ledger; guardrails look at nothing else. Models are reached through the `Models` protocol.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from data.imaging.preprocess import Decoded
from data.imaging.quality_concerns import size_concerns
from serve.classifier.answer import Answer, Classified, InvalidOutputError, answer
from serve.front_door.circuit_breaker import CircuitBreaker, CircuitBreakerConfig
from serve.front_door.prepared_image import pixels_for
from serve.front_door.replica_outage import unnamed_incident
from serve.front_door.serving_snapshot import ServingSnapshot
from serve.problems import Problem
from serve.routing.fault_injection import Fault
from serve.routing.routes import Routes, Target

Outcome = Literal["ok", "model_error", "invalid_output", "deadline", "infrastructure"]
WORTHWHILE_S = 0.1
"""With less time left, seconds, the champion is not asked a second time."""

logger = logging.getLogger(__name__)


class ModelError(RuntimeError):
    """The model raised on this input."""


class InfrastructureError(RuntimeError):
    """No replica could be reached, or the replica died during the request."""

    def __init__(self, message: str, incident: str | None = None) -> None:
        """Args:
        incident: names the process that died, so that its death counts once; None: unknown.
        """
        super().__init__(message)
        self.incident = incident


class Models(Protocol):
    """How a front door reaches the models."""

    async def classify(self, target: Target, pixels_HW: np.ndarray, judged: bool) -> Classified:
        """Classify one image, uint8 (side, side).

        Args:
            judged: with its OOD score; only code that wrote a card with a rule for it computes one.
        Raises:
            ModelError, InfrastructureError: two errors, because guardrails count them apart.
        """
        ...

    def away(self, target: Target, since_s: float) -> str | None:
        """Return the incident's name if a version had no running replica now or at some time since, else None.

        Args:
            since_s: by the monotonic clock.
        """
        ...

    def explain(self, target: Target, finding: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """Stream the events of one explanation, see `serve.explanation.explainer`."""
        ...

    async def crash(self, target: Target) -> None:
        """End a replica's process, on a game day.

        Raises:
            InfrastructureError: it has died.
        """
        ...

    async def heat(self, target: Target, pixels_HW: np.ndarray, label: int) -> np.ndarray | None:
        """Compute a heatmap, see `serve.classifier.saliency`; None while the replica is busy with another image.

        Raises:
            ModelError, InfrastructureError: as `classify`.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """The outcome of asking one version about one image."""

    version: str
    outcome: Outcome
    latency_ms: float
    """From scaling the image to its answer, or to giving up, milliseconds."""
    incident: str | None = None
    """With outcome `infrastructure` only."""
    answer: Answer | None = None
    """With outcome `ok` only."""

    def as_row(self) -> dict[str, Any]:
        """Return the attempt as the ledger stores it."""
        row: dict[str, Any] = {
            "version": self.version,
            "outcome": self.outcome,
            "latency_ms": round(self.latency_ms, 2),
        }
        return row | ({"incident": self.incident} if self.incident is not None else {})


class NobodyAnsweredError(Problem):
    """503: every version that was tried failed; the ledger keeps the attempts."""

    def __init__(self, attempts: list[Attempt]) -> None:
        super().__init__(
            503, "the classifier does not answer at the moment; retry", headers={"Retry-After": "2"}
        )
        self.attempts = attempts


class Attempts:
    """Asks versions on behalf of one front door."""

    def __init__(
        self, models: Models, *, deadline_s: float, breaker: CircuitBreakerConfig | None = None
    ) -> None:
        self.models = models
        self.deadline_s = deadline_s
        self._breaker = breaker or CircuitBreakerConfig()
        self._breakers: dict[str, CircuitBreaker] = {}

    async def ask_with_fallback(
        self, snapshot: ServingSnapshot, routes: Routes, assigned: Target, decoded: Decoded
    ) -> tuple[Target, list[Attempt]]:
        """Ask the assigned version, then the champion; return the version that answered, and all attempts.

        The champion is asked a second time when a process died during the request: another replica may run.

        Raises:
            NobodyAnsweredError: neither version answered.
        """
        champion = routes.champion
        attempts: list[Attempt] = []
        ends_at = time.monotonic() + self.deadline_s
        if assigned.version != champion.version:
            attempts.append(await self.ask_version(snapshot, assigned, decoded, self.deadline_s / 2))
            if attempts[-1].answer is not None:
                return assigned, attempts
        for _ in range(2):
            left_s = ends_at - time.monotonic()
            attempts.append(await self.ask_version(snapshot, champion, decoded, left_s, required=True))
            if attempts[-1].answer is not None:
                return champion, attempts
            if attempts[-1].outcome != "infrastructure" or ends_at - time.monotonic() < WORTHWHILE_S:
                break
        raise NobodyAnsweredError(attempts)

    async def ask_version(
        self,
        snapshot: ServingSnapshot,
        target: Target,
        decoded: Decoded,
        within_s: float,
        *,
        required: bool = False,
    ) -> Attempt:
        """Ask one version; a failure becomes the attempt's outcome, never an exception.

        Args:
            required: ask it although its breaker is open, and wait for a replica if it has none at the moment.
        """
        breaker = self._breakers.setdefault(target.version, CircuitBreaker(self._breaker))
        began_s = time.monotonic()
        if not breaker.allows(began_s) and not required:
            return _unavailable(target, "is not asked for a while", 0.0)
        # also for the champion: an outage is known only from observations before and after it
        absent = self.models.away(target, began_s)
        if absent is not None and not required:
            return _unavailable(target, "has no process at the moment", 0.0, absent)
        try:
            card = snapshot.cards.get(target.version)
            if card is None:
                return _unavailable(target, "has no card yet", 0.0)
            pixels_HW = await pixels_for(decoded, card.pixels)
            async with asyncio.timeout(within_s):  # wait_for would make a task for it
                classified = await self._with_fault(
                    snapshot.faults.get(target.version), target, pixels_HW, card.outliers is not None
                )
            concerns = (*decoded.concerns, *size_concerns(decoded.width, decoded.height, card.pixels.side))
            attempt = Attempt(
                version=target.version,
                outcome="ok",
                latency_ms=_since_ms(began_s),
                answer=answer(classified, card, concerns),
            )
        except InvalidOutputError:
            attempt = _failed(target, "invalid_output", began_s)
        except ModelError:
            logger.exception("version %s raised", target.version)
            attempt = _failed(target, "model_error", began_s)
        except TimeoutError:
            breaker.record_failure(time.monotonic())
            incident = await asyncio.to_thread(self.models.away, target, began_s)
            if incident is not None:  # no replica was there to be late
                return _unavailable(target, "had no process", _since_ms(began_s), incident)
            return _failed(target, "deadline", began_s)
        except InfrastructureError as error:
            breaker.record_failure(time.monotonic())
            logger.warning("no replica of version %s answered: %s", target.version, error)
            return _unavailable(target, "did not answer", _since_ms(began_s), error.incident)
        breaker.record_success()
        return attempt

    async def _with_fault(
        self, fault: Fault | None, target: Target, pixels_HW: np.ndarray, judged: bool
    ) -> Classified:
        """Ask the model, with the fault that an operator injected."""
        if fault is not None:
            await asyncio.sleep(fault.delay_ms / 1000)
            if fault.errs():
                raise ModelError("an injected error")
            if fault.crash:
                await self.models.crash(target)
        return await self.models.classify(target, pixels_HW, judged)


def _failed(target: Target, outcome: Outcome, began_s: float) -> Attempt:
    return Attempt(version=target.version, outcome=outcome, latency_ms=_since_ms(began_s))


def _unavailable(target: Target, why: str, latency_ms: float, incident: str | None = None) -> Attempt:
    logger.debug("version %s %s", target.version, why)
    named = incident or unnamed_incident(target.version)
    return Attempt(version=target.version, outcome="infrastructure", latency_ms=latency_ms, incident=named)


def _since_ms(began_s: float) -> float:
    return (time.monotonic() - began_s) * 1000
