"""A rollout as operators see it, over HTTP and as the last line of a job."""

import time
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from psycopg import Connection
from psycopg.rows import DictRow
from pydantic import Field
from typing_extensions import TypedDict

from cluster.database import connect
from cluster.settings import Settings
from serve.control import rollout_store
from serve.control.plan import OperatorCommand, Rollout, State
from serve.routing import desired_state

LOOK_S = 1.0
Share = Annotated[float, Field(ge=0, le=1)]


class StepView(TypedDict):
    number: int
    """From 1."""
    of: int
    share: Share


class RolloutView(TypedDict):
    id: int
    model: str
    version: str
    champion: str
    state: State
    step: StepView | None
    """None while replicas start."""
    weights: dict[str, Share]
    """By live version; they sum to 1."""
    verdict: str | None
    """What the evidence asks for."""
    why: str | None
    missing: dict[str, Any] | None
    """What a promotion still needs, see `serve.canary.promotion`."""
    evidence: list[dict[str, Any]]
    """State of each guardrail, see `serve.canary.verdict`."""
    wish: OperatorCommand | None
    """Command of an operator that the controller has not carried out yet."""
    started_at: str
    """ISO 8601; likewise `ended_at`."""
    started_by: str
    ended_at: str | None


def weights_of(connection: Connection[DictRow], rollout: Rollout) -> dict[str, float]:
    """Return the weights of the model's live versions, by version."""
    live = desired_state.read(connection).get(rollout.model)
    return {} if live is None else live.weights


def summarise(rollout: Rollout, weights: Mapping[str, float]) -> RolloutView:
    """Describe a rollout without its plan and its raw evidence."""
    step, verdict = rollout.current, rollout.verdict
    return {
        "id": rollout.id,
        "model": rollout.model,
        "version": rollout.version,
        "champion": rollout.champion,
        "state": rollout.state,
        "step": None
        if step is None
        else {"number": rollout.step + 1, "of": len(rollout.steps), "share": step.share},
        "weights": dict(weights),
        "verdict": verdict.get("action"),
        "why": verdict.get("why"),
        "missing": verdict.get("missing"),
        "evidence": verdict.get("guardrails", []),
        "wish": rollout.wish,
        "started_at": rollout.started_at.isoformat(),
        "started_by": rollout.started_by,
        "ended_at": None if rollout.ended_at is None else rollout.ended_at.isoformat(),
    }


def watch(
    settings: Settings, rollout_id: int, *, wait_s: float, report: Callable[[Rollout, str], None]
) -> RolloutView:
    """Wait until a rollout has ended, at most `wait_s` seconds, and describe it as it is then.

    Args:
        report: called with the rollout and a line for people whenever that line changes; not without waiting.
    """
    ends_at, last_line = time.monotonic() + wait_s, ""
    with connect(settings.database_url) as connection:
        while True:
            rollout = rollout_store.get(connection, rollout_id)
            view = summarise(rollout, weights_of(connection, rollout))
            line = f"{rollout.state}: {view['why'] or 'its replicas are started'}"
            if wait_s and line != last_line:
                last_line = line
                report(rollout, line)
            if rollout.ended_at is not None or time.monotonic() >= ends_at:
                return view
            time.sleep(LOOK_S)
