"""Staged versions, which run beside the others without a rollout: staging and development on one cluster.

A staged version has the weight that its environment gives it, none by default, answers operators who name it in
`X-Raydiology-Version`, and may get a share of the others' requests mirrored. It is part of no rollout; a rollout
takes it over as it is.
"""

from dataclasses import replace

from psycopg import Connection
from psycopg.rows import DictRow

from serve.control import rollout_store
from serve.routing import desired_state
from serve.routing import routes as routing
from serve.routing.routes import Routes, RoutingError, Target


def enter(
    connection: Connection[DictRow],
    *,
    model: str,
    version: str,
    bundle_key: str,
    share: float = 0.0,
    mirror: float = 0.0,
    actor: str,
) -> bool:
    """Make a version live. Returns True if it was not live before; a live one changes only its share, if staged.

    Raises:
        NotServedError: the model has no champion yet.
        RoutingError: the champion has less than `share`.
    """
    was_live = True

    def changed(routes: Routes) -> Routes:
        nonlocal was_live
        known = {target.version: target for target in routes.targets}
        was_live = version in known
        is_staged = was_live and known[version].role == "staged"
        if was_live and not is_staged and not rollout_store.is_left_over(connection, routes, version):
            return routes
        staged = Target(version=version, role="staged", bundle_key=bundle_key, mirror=mirror)
        others = tuple(target for target in routes.targets if target.version != version)
        return routing.set_weights(replace(routes, targets=(*others, staged)), {version: share})

    desired_state.change(connection, model, version, changed, actor=actor, action="stage")
    return not was_live


def leave(connection: Connection[DictRow], *, model: str, version: str, actor: str) -> None:
    """End a staged version; its share goes to the champion.

    Raises:
        NotServedError, RoutingError: it is not staged.
    """

    def changed(routes: Routes) -> Routes:
        target = routes.target(version)
        if target.role != "staged":
            raise RoutingError(f"version {version} of {model} is not staged, it is {target.role}")
        return routing.remove(routing.drain(routes, version), version)

    desired_state.change(connection, model, version, changed, actor=actor, action="unstage")
