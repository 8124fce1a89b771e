"""Routes of operators: rollouts, traffic and faults. They leave commands in PostgreSQL for the controller.

Each call takes a connection of its own, in a thread: operators are few.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, Depends
from psycopg import Connection, OperationalError
from psycopg.rows import DictRow

from cluster.database import connect
from cluster.expected import ExpectedError
from cluster.releases.registry import Registry, RegistryError
from cluster.settings import Settings
from serve.api.openapi import AUTH_STATUSES, BEARER, responses
from serve.api.schemas import FaultBody, Faults, RolloutBody, Rollouts, StepBody, Traffic, TrafficBody
from serve.api.services import fault_operator, operator, settings_of
from serve.control import rollout_store, start
from serve.control.rollout_view import RolloutView, summarise, weights_of
from serve.problems import Problem, unavailable
from serve.routing import desired_state, fault_injection
from serve.routing.fault_injection import Fault
from serve.routing.routes import RoutingError

T = TypeVar("T")
Actor = Annotated[str, Depends(operator)]
"""Name of the operator's key. A dependency, since those are solved before a body is checked: a stranger learns nothing
about bodies."""
FaultActor = Annotated[str, Depends(fault_operator)]
PlatformSettings = Annotated[Settings, Depends(settings_of)]
Verb = Literal["promote", "pause", "resume", "rollback"]

router = APIRouter()


async def run_in_thread(work: Callable[[], T]) -> T:
    """Run blocking work in a thread; expected errors become problems."""
    try:
        return await asyncio.to_thread(work)
    except OperationalError as error:
        raise unavailable("the database") from error
    except (rollout_store.NoRolloutError, RegistryError) as error:
        raise Problem(404, str(error)) from error
    except (RoutingError, ValueError) as error:
        raise Problem(400, str(error)) from error
    except ExpectedError as error:
        raise Problem(409, str(error)) from error


async def with_connection(settings: Settings, work: Callable[[Connection[DictRow]], T]) -> T:
    """Run `work` in a thread, with a connection to PostgreSQL."""

    def run() -> T:
        with connect(settings.database_url, connect_timeout_s=start.CONNECT_S) as connection:
            return work(connection)

    return await run_in_thread(run)


@router.get(
    "/v1/rollouts",
    dependencies=[Depends(operator)],
    openapi_extra=BEARER,
    responses=responses(200, "the newest, first", *AUTH_STATUSES),
)
async def list_rollouts(settings: PlatformSettings) -> Rollouts:
    """List the newest rollouts, each with its evidence so far. Role: operator."""

    def work(connection: Connection[DictRow]) -> list[RolloutView]:
        newest = rollout_store.newest(connection)
        return [summarise(rollout, weights_of(connection, rollout)) for rollout in newest]

    return {"rollouts": await with_connection(settings, work)}


@router.post(
    "/v1/rollouts",
    status_code=201,
    openapi_extra=BEARER,
    responses=responses(201, "begun", 400, 404, 409, *AUTH_STATUSES),
)
async def start_rollout(actor: Actor, settings: PlatformSettings, body: RolloutBody) -> RolloutView:
    """Bring a version in front of users step by step. Role: operator."""
    steps: Any = body.steps
    if isinstance(steps, list):
        steps = [step.model_dump() if isinstance(step, StepBody) else step for step in steps]

    def work() -> RolloutView:
        started = start.start_rollout(
            settings, model=body.model, version=body.version, steps=steps, actor=actor
        )
        return summarise(*started)

    return await run_in_thread(work)


@router.post(
    "/v1/rollouts/{rollout_id}/{verb}",
    name="wish",  # part of the operation's id, after which generated clients name their methods
    openapi_extra=BEARER,
    responses=responses(200, "the controller carries it out", 400, 404, 409, *AUTH_STATUSES),
)
async def command_rollout(
    actor: Actor, settings: PlatformSettings, rollout_id: int, verb: Verb
) -> RolloutView:
    """Promote to the next step, pause, resume, or roll back. Role: operator."""

    def work(connection: Connection[DictRow]) -> RolloutView:
        rollout = rollout_store.request(connection, rollout_id, verb, actor=actor)
        return summarise(rollout, weights_of(connection, rollout))

    return await with_connection(settings, work)


@router.put(
    "/v1/traffic",
    openapi_extra=BEARER,
    responses=responses(200, "in force", 400, 409, *AUTH_STATUSES),
)
async def put_traffic(actor: Actor, settings: PlatformSettings, body: TrafficBody) -> Traffic:
    """Set weights by hand. Role: operator."""

    def work(connection: Connection[DictRow]) -> dict[str, float]:
        return start.set_traffic(connection, body.model, body.weights, actor=actor)

    return {"model": body.model, "weights": await with_connection(settings, work)}


@router.put(
    "/v1/faults",
    openapi_extra=BEARER,
    responses=responses(200, "in force", 400, 404, *AUTH_STATUSES),
)
async def put_fault(actor: FaultActor, settings: PlatformSettings, body: FaultBody) -> Faults:
    """Make a version err, be late or die, on a game day. Role: operator; only in development and staging."""
    fault = Fault(error_rate=body.error_rate, delay_ms=body.delay_ms, crash=body.crash)

    def work(connection: Connection[DictRow]) -> None:
        live = desired_state.read(connection).get(body.model)
        if live is None or all(target.version != body.version for target in live.targets):
            # Raises for a number that is not registered: else a mistyped one would look like a version that copes.
            Registry(settings).tags(body.model, body.version)
        fault_injection.put(connection, body.model, body.version, fault, actor=actor)

    await with_connection(settings, work)
    return {"faults": {body.version: fault}}


@router.delete(
    "/v1/faults",
    openapi_extra=BEARER,
    responses=responses(200, "there is none any more", *AUTH_STATUSES),
)
async def clear_faults(actor: FaultActor, settings: PlatformSettings) -> Faults:
    """End all faults. Role: operator; only in development and staging."""
    await with_connection(settings, partial(fault_injection.clear, actor=actor))
    return {"faults": {}}
