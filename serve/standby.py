"""Versions that run beside the others without being rolled out: what staging and development are on one cluster.

A staged version has the weight that its environment gives it, none by default, answers operators who name it in
`X-Raydiology-Version`, and may be shown a share of the others' requests. It is part of no rollout; one takes it over as
it is.
"""

from dataclasses import replace

from psycopg import Connection
from psycopg.rows import DictRow

from serve import desired, rollouts, routing
from serve.routing import Routes, RoutingError, Target


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
    """Make a version live; whether it was not. One that is live already stays as it is, but for a staged one's share.

    Raises:
        NotServedError: the model has no champion yet.
        RoutingError: the champion has less than `share`.
    """
    was_live = True

    def changed(routes: Routes) -> Routes:
        nonlocal was_live
        known = {one.version: one for one in routes.targets}
        was_live = version in known
        if (
            was_live
            and known[version].role != "staged"
            and not rollouts.is_left_over(connection, routes, version)
        ):
            return routes
        staged = Target(version=version, role="staged", bundle_key=bundle_key, mirror=mirror)
        others = tuple(one for one in routes.targets if one.version != version)
        return routing.reweighted(replace(routes, targets=(*others, staged)), {version: share})

    desired.change(connection, model, version, changed, actor=actor, action="stage")
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
        return routing.removed(routing.withdrawn(routes, version), version)

    desired.change(connection, model, version, changed, actor=actor, action="unstage")
