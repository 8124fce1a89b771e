"""What operators call over HTTP: rollouts and traffic. They leave wishes in PostgreSQL for the controller."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from functools import partial
from typing import Annotated, Any, Literal, TypeVar

from fastapi import Depends, FastAPI, Request
from psycopg import Connection, OperationalError
from psycopg.rows import DictRow
from pydantic import BaseModel, ConfigDict, Field

from cluster.database import connect
from cluster.expected import ExpectedError
from cluster.registry import LLM, NUMBER, ClassifierName, ModelName, Registry, RegistryError
from cluster.settings import Settings
from data.taxonomy import taxonomy
from serve import desired, environments, faults, rollouts, routing
from serve.admission import admit
from serve.auth import Caller
from serve.controller import summary
from serve.faults import Fault
from serve.guardrails import GuardrailConfig, Step, explainer_guardrails
from serve.label_mix import label_mix
from serve.openapi import BEARER, answers
from serve.problems import Problem, unavailable
from serve.rollout import Plan, Rollout, Wish, steps_of, without_images
from serve.routing import Routes, RoutingError

T = TypeVar("T")
Verb = Literal["promote", "pause", "resume", "rollback"]
CONNECT_S = 3
JSON = "application/json"
MOST_STEPS = 50
ENDS = (401, 403, 429, 503)
"""What each of these calls can end in."""


Version = Annotated[str, Field(pattern=f"^{NUMBER}$")]
"""A version's number in the registry."""


class StepBody(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    share: float = Field(ge=0, le=1)
    minutes: float = Field(default=5.0, ge=0)
    requests: int = Field(default=0, ge=0)
    pairs: int = Field(default=0, ge=0)
    non_inferior: bool = True


class RolloutBody(BaseModel):
    """A version to bring in front of users."""

    model_config = ConfigDict(extra="forbid")
    model: ModelName
    version: Version
    steps: (
        Literal["canary", "blue_green", "at_once"]
        | Annotated[list[float | StepBody], Field(min_length=1, max_length=MOST_STEPS)]
        | None
    ) = None


class TrafficBody(BaseModel):
    """Shares of a model's live versions; the champion has what is left."""

    model_config = ConfigDict(extra="forbid")
    model: ModelName
    weights: dict[Version, float] = Field(min_length=1, max_length=32)


class FaultBody(BaseModel):
    """What is to befall requests to one version of the classifier."""

    model_config = ConfigDict(extra="forbid")
    model: ClassifierName
    version: Version
    error_rate: float = Field(default=0.0, ge=0, le=1)
    delay_ms: float = Field(default=0.0, ge=0, le=60_000)
    crash: bool = False


def begin(
    settings: Settings,
    *,
    model: str,
    version: str,
    steps: Any = None,
    guardrails: GuardrailConfig | None = None,
    stage: str | None = None,
    back: bool = False,
    actor: str,
) -> tuple[Rollout, dict[str, float]]:
    """Start a rollout of a registered version that has passed what the environment asks for.

    Args:
        steps: see `steps_of`; default: the environment's.
        guardrails: default: the usual ones.
        stage: the environment, where it is not the platform's.
        back: it is a return to an earlier version; of one that has been the champion no load test is asked.
    Raises:
        RegistryError, AdmissionError, RolloutError, ValueError: one line each.
    """
    registry = Registry(settings)
    where = environments.environments(settings)[stage or settings.environment]
    asks_for = list(where.asks_for)
    if back and "load_test" in asks_for:
        with connect(settings.database_url, connect_timeout_s=CONNECT_S) as connection:
            if desired.was_champion(connection, model, version):
                asks_for.remove("load_test")
    tags = registry.tags(model, version)
    admit(model, version, tags, environment=where.name, asks_for=asks_for, load_rate=where.load_rate)
    usual = where.steps if isinstance(where.steps, str) else list(where.steps)
    wanted = steps_of(usual if steps is None else steps)
    with connect(settings.database_url, connect_timeout_s=CONNECT_S) as connection:
        plan = _plan(connection, model, wanted, guardrails)
        started = rollouts.start(
            connection,
            model=model,
            version=version,
            bundle_key=registry.bundle_key(model, version),
            plan=plan,
            actor=actor,
        )
        return started, weights_of(connection, started)


def _plan(
    connection: Connection[DictRow], model: str, steps: tuple[Step, ...], guardrails: GuardrailConfig | None
) -> Plan:
    labels = taxonomy().names
    if model == LLM:
        return Plan(guardrails=guardrails or explainer_guardrails(labels), steps=without_images(steps))
    if guardrails is not None:
        return Plan(guardrails=guardrails, steps=steps)
    live = desired.read(connection).get(model)
    champion = "" if live is None else live.champion.version
    usual = label_mix(connection, model=model, version=champion, labels=labels)
    return Plan(guardrails=GuardrailConfig(labels=labels, label_shares=usual), steps=steps)


def weights_of(connection: Connection[DictRow], one: Rollout) -> dict[str, float]:
    live = desired.read(connection).get(one.model)
    return {} if live is None else live.weights


def set_traffic(
    connection: Connection[DictRow], model: str, weights: dict[str, float], *, actor: str
) -> dict[str, float]:
    """Set weights by hand; a rollout that is under way is paused, and its guardrails go on.

    Raises:
        RoutingError, NotServedError: one line each.
        RolloutError: one is being started, whose version has nobody yet who could answer.
    """

    def changed(routes: Routes) -> Routes:
        return routing.set_weights(routes, weights)

    with connection.transaction():
        one = rollouts.under_way(connection, model)
        if one is not None and one.state == "starting":
            raise rollouts.RolloutError(
                f"rollout {one.id} still starts the replicas of version {one.version}: wait, or roll it back"
            )
        if one is not None and one.state == "running":
            rollouts.set_state(connection, one, "paused", actor=actor, why="weights are set by hand")
        version = ",".join(sorted(weights))
        return desired.change(connection, model, version, changed, actor=actor, action="set_traffic").weights


def add_operator_calls(
    app: FastAPI, settings: Settings, caller_of: Callable[[Request], Awaitable[Caller]]
) -> None:
    """Add the routes of operators."""

    async def operator(request: Request) -> str:
        """Who calls; a dependency, since those are asked before a body is checked: a stranger learns nothing of it."""
        caller = await caller_of(request)
        caller.need("operator")
        return caller.key_id

    async def game_master(actor: Annotated[str, Depends(operator)]) -> str:
        if settings.environment not in (allowed := environments.allowing_faults(settings)):
            raise Problem(
                403, f"faults are injected in {' and '.join(allowed)} only; this is {settings.environment}"
            )
        return actor

    async def asked(work: Callable[[Connection[DictRow]], T]) -> T:
        def run() -> T:
            with connect(settings.database_url, connect_timeout_s=CONNECT_S) as connection:
                return work(connection)

        return await carried_out(run)

    @app.get(
        "/v1/rollouts",
        dependencies=[Depends(operator)],
        openapi_extra=BEARER,
        responses=answers(200, "the newest, first", {JSON: "Rollouts"}, *ENDS),
    )
    async def list_rollouts() -> dict[str, Any]:
        """The newest rollouts, each with its evidence so far. Role: operator."""

        def work(connection: Connection[DictRow]) -> list[dict[str, Any]]:
            return [summary(one, weights_of(connection, one)) for one in rollouts.newest(connection)]

        return {"rollouts": await asked(work)}

    @app.post(
        "/v1/rollouts",
        status_code=201,
        openapi_extra=BEARER,
        responses=answers(201, "begun", {JSON: "Rollout"}, 400, 404, 409, *ENDS),
    )
    async def start_rollout(actor: Annotated[str, Depends(operator)], body: RolloutBody) -> dict[str, Any]:
        """Bring a version in front of users step by step. Role: operator."""
        steps: Any = body.steps
        if isinstance(steps, list):
            steps = [one.model_dump() if isinstance(one, StepBody) else one for one in steps]

        def run() -> dict[str, Any]:
            started = begin(settings, model=body.model, version=body.version, steps=steps, actor=actor)
            return summary(*started)

        return await carried_out(run)

    @app.post(
        "/v1/rollouts/{rollout_id}/{verb}",
        openapi_extra=BEARER,
        responses=answers(200, "the controller carries it out", {JSON: "Rollout"}, 400, 404, 409, *ENDS),
    )
    async def wish(actor: Annotated[str, Depends(operator)], rollout_id: int, verb: Verb) -> dict[str, Any]:
        """Promote to the next step, pause, resume, or roll back. Role: operator."""

        def work(connection: Connection[DictRow]) -> dict[str, Any]:
            wanted: Wish = verb
            one = rollouts.wish(connection, rollout_id, wanted, actor=actor)
            return summary(one, weights_of(connection, one))

        return await asked(work)

    @app.put(
        "/v1/traffic",
        openapi_extra=BEARER,
        responses=answers(200, "in force", {JSON: "Traffic"}, 400, 409, *ENDS),
    )
    async def put_traffic(actor: Annotated[str, Depends(operator)], body: TrafficBody) -> dict[str, Any]:
        """Set weights by hand. Role: operator."""

        def work(connection: Connection[DictRow]) -> dict[str, float]:
            return set_traffic(connection, body.model, body.weights, actor=actor)

        return {"model": body.model, "weights": await asked(work)}

    @app.put(
        "/v1/faults",
        openapi_extra=BEARER,
        responses=answers(200, "in force", {JSON: "Faults"}, 400, 404, *ENDS),
    )
    async def put_fault(actor: Annotated[str, Depends(game_master)], body: FaultBody) -> dict[str, Any]:
        """Make a version err, be late or die, on a game day. Role: operator; only in development and staging."""

        def there(connection: Connection[DictRow]) -> None:
            """Else a mistyped number would look like a version that stands it."""
            live = desired.read(connection).get(body.model)
            if live is None or all(one.version != body.version for one in live.targets):
                Registry(settings).tags(body.model, body.version)

        await asked(there)
        fault = Fault(error_rate=body.error_rate, delay_ms=body.delay_ms, crash=body.crash)
        await asked(partial(faults.put, model=body.model, version=body.version, fault=fault, actor=actor))
        return {"faults": {body.version: asdict(fault)}}

    @app.delete(
        "/v1/faults",
        openapi_extra=BEARER,
        responses=answers(200, "there is none any more", {JSON: "Faults"}, *ENDS),
    )
    async def clear_faults(actor: Annotated[str, Depends(game_master)]) -> dict[str, Any]:
        """End all faults. Role: operator; only in development and staging."""
        await asked(partial(faults.clear, actor=actor))
        return {"faults": {}}


async def carried_out(work: Callable[[], T]) -> T:
    """In a thread, with errors as problems."""
    try:
        return await asyncio.to_thread(work)
    except OperationalError as error:
        raise unavailable("the database") from error
    except (rollouts.NoRolloutError, RegistryError) as error:
        raise Problem(404, str(error)) from error
    except (RoutingError, ValueError) as error:
        raise Problem(400, str(error)) from error
    except ExpectedError as error:
        raise Problem(409, str(error)) from error
