"""Desired state in a real PostgreSQL, and how a front door follows it."""

import asyncio
import secrets
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import psycopg
import pytest

from cluster.database import connect
from serve.control import staged_versions
from serve.front_door.serving_snapshot import ServingSnapshot, SnapshotWatcher
from serve.routing import desired_state, fault_injection
from serve.routing import routes as routing
from serve.routing.fault_injection import Fault
from serve.routing.routes import Routes, RoutingError


@pytest.fixture
def model(platform: Any) -> str:
    """A model of the test's own, whose version 1 is served and version 2 is ready."""
    name = f"model-{secrets.token_hex(4)}"
    with connect(platform.settings.database_url) as connection:
        desired_state.cut_over(connection, model=name, version="1", bundle_key="bundles/1", actor="test")
        desired_state.change(
            connection,
            name,
            "2",
            partial(routing.add, version="2", bundle_key="bundles/2"),
            actor="t",
            action="add",
        )
    return name


def weigh(platform: Any, model: str, share: float) -> Routes:
    with connect(platform.settings.database_url) as connection:
        return desired_state.change(
            connection,
            model,
            "2",
            partial(routing.set_weights, weights={"2": share}),
            actor="t",
            action="weigh",
        )


def test_a_change_is_one_revision_and_one_audit_row_and_no_change_is_none(platform: Any, model: str) -> None:
    first, again = weigh(platform, model, 0.1), weigh(platform, model, 0.1)
    assert first == again
    with connect(platform.settings.database_url) as connection:
        assert desired_state.read(connection)[model] == first
        rows = connection.execute(
            "SELECT action, detail FROM audit WHERE subject = %s ORDER BY id", [f"{model}/2"]
        ).fetchall()
    assert [row["action"] for row in rows] == ["add", "weigh"]
    assert rows[1]["detail"] == {"before": {"1": 1.0, "2": 0.0}, "after": {"1": 0.9, "2": 0.1}}


def test_a_change_that_is_refused_leaves_everything_as_it_was(platform: Any, model: str) -> None:
    before = weigh(platform, model, 0.1)
    with pytest.raises(RoutingError):
        weigh(platform, model, 2.0)
    with connect(platform.settings.database_url) as connection:
        assert desired_state.read(connection)[model] == before
        with pytest.raises(desired_state.NotServedError, match=r"run `python -m jobs\.deploy` first"):
            desired_state.change(connection, "nothing", "1", lambda one: one, actor="t", action="x")


class Door:
    """The snapshot of one front door, which follows PostgreSQL while `within` runs."""

    def __init__(self, read_card: Callable[[str], Any] = lambda key: key) -> None:
        self.snapshots: list[ServingSnapshot] = []
        self.watcher = SnapshotWatcher(read_card, self.snapshots.append, classifier="none")

    def within(self, url: str, work: Callable[[], Any]) -> None:
        async def both() -> None:
            following = asyncio.create_task(self.watcher.follow(url))
            try:
                await work()
            finally:
                following.cancel()

        asyncio.run(both())

    async def sees(self, model: str, weights: dict[str, float]) -> float:
        """Seconds until it does."""
        began_s = time.monotonic()
        while (
            model not in self.watcher.snapshot.routes
            or self.watcher.snapshot.routes[model].weights != weights
        ):
            assert time.monotonic() - began_s < 20
            await asyncio.sleep(0.002)
        return time.monotonic() - began_s


def test_a_front_door_knows_of_a_change_long_before_it_would_look_by_itself(
    platform: Any, model: str
) -> None:
    door = Door()
    took_s = []

    async def work() -> None:
        await door.sees(model, {"1": 1.0, "2": 0.0})
        for share in (0.1, 0.5, 0.0):
            await asyncio.to_thread(weigh, platform, model, share)
            took_s.append(await door.sees(model, {"1": 1 - share, "2": share}))

    door.within(platform.settings.database_url, work)
    assert sorted(took_s)[1] < 1.0  # it looks by itself every two seconds


def test_a_front_door_whose_connection_was_cut_follows_again_and_keeps_its_board_meanwhile(
    platform: Any, model: str
) -> None:
    door = Door()

    async def work() -> None:
        await door.sees(model, {"1": 1.0, "2": 0.0})
        await asyncio.to_thread(cut_listeners, platform)
        assert door.watcher.snapshot.routes[model].champion.version == "1"
        await asyncio.to_thread(weigh, platform, model, 0.25)
        await door.sees(model, {"1": 0.75, "2": 0.25})

    door.within(platform.settings.database_url, work)


def cut_listeners(platform: Any) -> None:
    with psycopg.connect(platform.settings.database_url, autocommit=True) as connection:
        cut = connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'SELECT version, fault FROM%'"
        ).fetchall()
    assert cut


def test_a_front_door_hears_of_faults_as_it_does_of_routes(platform: Any, model: str) -> None:
    door = Door()
    door.watcher = SnapshotWatcher(lambda key: key, door.snapshots.append, classifier=model)
    told = Fault(error_rate=0.2, crash=True)

    async def until(faults_by_version: dict[str, Fault]) -> None:
        began_s = time.monotonic()
        while door.watcher.snapshot.faults != faults_by_version:
            assert time.monotonic() - began_s < 20
            await asyncio.sleep(0.01)

    async def work() -> None:
        await door.sees(model, {"1": 1.0, "2": 0.0})
        with connect(platform.settings.database_url) as connection:
            fault_injection.put(connection, model, "2", told, actor="op")
            await until({"2": told})
            assert fault_injection.clear(connection, actor="op") >= 1
            await until({})

    door.within(platform.settings.database_url, work)
    with connect(platform.settings.database_url) as connection:
        rows = connection.execute("SELECT action FROM audit WHERE subject = %s", [f"{model}/2"]).fetchall()
    assert "put_fault" in {row["action"] for row in rows}


def test_older_routes_never_replace_newer_ones_whichever_way_they_come(platform: Any, model: str) -> None:
    old, new = weigh(platform, model, 0.1), weigh(platform, model, 0.2)
    door = Door()

    async def work() -> None:
        await door.watcher.take({model: new})
        await door.watcher.take({model: old})

    asyncio.run(work())
    assert [one.routes[model] for one in door.snapshots] == [new]


def test_a_version_whose_card_cannot_be_read_holds_no_change_up_and_is_read_later(
    platform: Any, model: str
) -> None:
    asked: list[str] = []

    def read_card(key: str) -> Any:
        asked.append(key)
        if key == "bundles/2" and asked.count(key) == 1:
            raise OSError("away")
        return key

    routes = weigh(platform, model, 0.1)
    door = Door(read_card)
    door.watcher = SnapshotWatcher(read_card, door.snapshots.append, classifier=model)
    asyncio.run(door.watcher.take({model: routes}))
    assert door.watcher.snapshot.routes[model] == routes
    assert set(door.watcher.snapshot.cards) == {"1"}
    asyncio.run(door.watcher.take({model: replace(routes, revision=routes.revision)}))
    assert set(door.watcher.snapshot.cards) == {"1", "2"}


def stage(platform: Any, model: str, version: str, **given: Any) -> bool:
    with connect(platform.settings.database_url) as connection:
        return staged_versions.enter(
            connection, model=model, version=version, bundle_key=f"bundles/{version}", actor="t", **given
        )


def routes_of(platform: Any, model: str) -> Routes:
    with connect(platform.settings.database_url) as connection:
        return desired_state.read(connection)[model]


def test_a_staged_version_is_live_without_traffic_and_leaves_again(platform: Any, model: str) -> None:
    before = routes_of(platform, model)
    assert stage(platform, model, "3")
    assert not stage(platform, model, "3")
    staged = routes_of(platform, model)
    assert (staged.weights, staged.target("3").role) == ({"1": 1.0, "2": 0.0, "3": 0.0}, "staged")
    with connect(platform.settings.database_url) as connection:
        staged_versions.leave(connection, model=model, version="3", actor="t")
    assert routes_of(platform, model).targets == before.targets


def test_its_environment_may_give_a_staged_version_a_share_and_others_images(
    platform: Any, model: str
) -> None:
    stage(platform, model, "3", share=0.05, mirror=0.2)
    found = routes_of(platform, model)
    assert (found.weights["3"], found.weights["1"], found.target("3").mirror) == (0.05, 0.95, 0.2)
    with connect(platform.settings.database_url) as connection:
        staged_versions.leave(connection, model=model, version="3", actor="t")
    assert routes_of(platform, model).weights == {"1": 1.0, "2": 0.0}


def test_what_is_left_of_a_rollout_that_is_over_can_be_staged(platform: Any, model: str) -> None:
    assert routes_of(platform, model).target("2").role == "canary"
    stage(platform, model, "2")
    assert routes_of(platform, model).target("2").role == "staged"


def test_who_serves_or_is_rolled_out_is_not_made_a_staged_version(platform: Any, model: str) -> None:
    weigh(platform, model, 0.1)
    before = routes_of(platform, model)
    assert not stage(platform, model, "1")
    assert not stage(platform, model, "2")
    assert routes_of(platform, model) == before
    with connect(platform.settings.database_url) as connection:
        for version in ("1", "2"):
            with pytest.raises(RoutingError, match="is not staged"):
                staged_versions.leave(connection, model=model, version=version, actor="t")


def test_a_rollout_takes_a_staged_version_over(platform: Any, model: str) -> None:
    stage(platform, model, "3", share=0.05)
    taken = routing.add(routes_of(platform, model), "3", "bundles/3")
    assert (taken.target("3").role, taken.weights["3"]) == ("canary", 0.0)
