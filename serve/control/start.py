"""Starts rollouts and sets weights by hand, for HTTP and jobs alike; `serve.control.controller` carries
rollouts out.
"""

from collections.abc import Sequence
from typing import Any

from psycopg import Connection
from psycopg.rows import DictRow

from cluster.database import connect
from cluster.releases.registry import LLM, Registry
from cluster.settings import Settings
from data.taxonomy import taxonomy
from serve.canary.guardrails import GuardrailConfig, Step
from serve.control import environments, rollout_store
from serve.control.admission import admit
from serve.control.environments import Environment
from serve.control.label_baseline import label_mix
from serve.control.plan import Plan, Rollout, steps_of, without_images
from serve.control.rollout_view import weights_of
from serve.routing import desired_state
from serve.routing import routes as routing
from serve.routing.routes import Routes

CONNECT_S = 3
"""How long to wait for a connection: an operator waits for the answer."""


def start_rollout(
    settings: Settings,
    *,
    model: str,
    version: str,
    steps: str | Sequence[Any] | None = None,
    guardrails: GuardrailConfig | None = None,
    stage: str | None = None,
    back: bool = False,
    actor: str,
) -> tuple[Rollout, dict[str, float]]:
    """Start a rollout of a registered version that has passed what the environment asks for.

    Args:
        steps: see `serve.control.plan.steps_of`; default: the environment's.
        guardrails: default: the environment's.
        stage: the environment, if it is not the platform's.
        back: whether this is a return to an earlier version; a former champion needs no load test.
    Returns:
        the rollout, and the weights of the model's live versions.
    Raises:
        RegistryError, AdmissionError, RolloutError, ValueError: one line each.
    """
    registry = Registry(settings)
    environment = environments.environments(settings)[stage or settings.environment]
    asks_for = list(environment.asks_for)
    if back and "load_test" in asks_for:
        with connect(settings.database_url, connect_timeout_s=CONNECT_S) as connection:
            if desired_state.was_champion(connection, model, version):
                asks_for.remove("load_test")
    tags = registry.tags(model, version)
    admit(
        model, version, tags, environment=environment.name, asks_for=asks_for, load_rate=environment.load_rate
    )
    if steps is None:
        steps = environment.steps
    wanted_steps = steps_of(steps if isinstance(steps, str) else list(steps))
    with connect(settings.database_url, connect_timeout_s=CONNECT_S) as connection:
        rollout = rollout_store.start(
            connection,
            model=model,
            version=version,
            bundle_key=registry.bundle_key(model, version),
            plan=_plan(connection, environment, model, wanted_steps, guardrails),
            actor=actor,
        )
        return rollout, weights_of(connection, rollout)


def _plan(
    connection: Connection[DictRow],
    environment: Environment,
    model: str,
    steps: tuple[Step, ...],
    guardrails: GuardrailConfig | None,
) -> Plan:
    """Complete the steps by guardrails; the environment's limits and the champion's usual labels are frozen here."""
    labels = taxonomy().names
    if model == LLM:
        return Plan(
            guardrails=guardrails or environment.guardrails_of(model, labels), steps=without_images(steps)
        )
    if guardrails is not None:
        return Plan(guardrails=guardrails, steps=steps)
    live = desired_state.read(connection).get(model)
    champion = "" if live is None else live.champion.version
    label_shares = label_mix(connection, model=model, version=champion, labels=labels)
    return Plan(guardrails=environment.guardrails_of(model, labels, label_shares), steps=steps)


def set_traffic(
    connection: Connection[DictRow], model: str, weights: dict[str, float], *, actor: str
) -> dict[str, float]:
    """Set weights by hand; a running rollout is paused, and its guardrails go on.

    Returns:
        the weights in force, by live version.
    Raises:
        RoutingError, NotServedError: one line each.
        RolloutError: a rollout is starting, whose version has no replica yet that could answer.
    """

    def changed(routes: Routes) -> Routes:
        return routing.set_weights(routes, weights)

    with connection.transaction():
        rollout = rollout_store.under_way(connection, model)
        if rollout is not None and rollout.state == "starting":
            raise rollout_store.RolloutError(
                f"rollout {rollout.id} still starts the replicas of version {rollout.version}: wait, or roll it back"
            )
        if rollout is not None and rollout.state == "running":
            rollout_store.set_state(connection, rollout, "paused", actor=actor, why="weights are set by hand")
        version = ",".join(sorted(weights))
        return desired_state.change(
            connection, model, version, changed, actor=actor, action="set_traffic"
        ).weights
