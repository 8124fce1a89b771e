"""What is live, as one front door knows it, kept up to date from PostgreSQL within milliseconds.

Serve's `user_config` brings the first state to a replica that starts while the database is down; the higher revision
wins, whichever way it came. A rollback therefore waits for no controller. Knows neither Ray nor HTTP.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import dict_row

from cluster.expected import ExpectedError
from data.model_card import ModelCard
from serve.routing import desired_state
from serve.routing.fault_injection import READ, Fault
from serve.routing.routes import Routes, Target

LOOK_S = 2.0
"""Seconds between reads without a notification, should one be lost, and the pause after an error."""
ANSWER_S = 5.0
"""Seconds after which a silent database is read over a new connection."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ServingSnapshot:
    """What is live: routes of each model, card and injected fault of each version of the classifier."""

    routes: dict[str, Routes] = field(default_factory=dict)
    cards: dict[str, ModelCard] = field(default_factory=dict)
    """By version of the classifier."""
    faults: dict[str, Fault] = field(default_factory=dict)
    """By version of the classifier."""


class SnapshotWatcher:
    """Keeps one front door's snapshot up to date."""

    def __init__(
        self,
        read_card: Callable[[str], ModelCard],
        put: Callable[[ServingSnapshot], None],
        *,
        classifier: str,
    ) -> None:
        """Args:
        read_card: reads the card of a bundle; blocks.
        put: called with each new snapshot.
        """
        self._read_card = read_card
        self._put = put
        self._classifier = classifier
        self._cards_lock = asyncio.Lock()
        self.snapshot = ServingSnapshot()

    async def take(self, routes_by_model: Mapping[str, Routes]) -> None:
        """Take newer routes at once, then read the cards of new versions."""
        self.take_routes(routes_by_model)
        await self.learn_cards()

    def take_routes(self, routes_by_model: Mapping[str, Routes]) -> None:
        """Take newer routes only: moving traffic off a version must not wait for the object store."""
        newer = {
            model: routes
            for model, routes in routes_by_model.items()
            if model not in self.snapshot.routes or routes.revision > self.snapshot.routes[model].revision
        }
        if newer:
            self._publish(replace(self.snapshot, routes={**self.snapshot.routes, **newer}))

    def take_faults(self, faults: Mapping[str, Fault]) -> None:
        """Take the injected faults, by version of the classifier."""
        if faults != self.snapshot.faults:
            self._publish(replace(self.snapshot, faults=dict(faults)))

    async def learn_cards(self) -> None:
        """Read the cards of live versions; an unreadable one is tried again at the next call."""
        async with self._cards_lock:
            live = self.snapshot.routes.get(self._classifier)
            for target in live.targets if live is not None else ():
                if target.version not in self.snapshot.cards:
                    await self._learn(target)

    async def _learn(self, target: Target) -> None:
        try:
            card = await asyncio.to_thread(self._read_card, target.bundle_key)
        except (ExpectedError, ValueError, OSError) as error:
            logger.warning("version %s has no card yet: %s", target.version, type(error).__name__)
            return
        self._publish(replace(self.snapshot, cards={**self.snapshot.cards, target.version: card}))

    def _publish(self, snapshot: ServingSnapshot) -> None:
        self.snapshot = snapshot
        self._put(snapshot)

    async def follow(self, database_url: str) -> None:
        """Follow PostgreSQL for ever; while it is down the snapshot stays as it is."""
        learning: asyncio.Task[None] | None = None
        while True:
            try:
                async with await AsyncConnection.connect(
                    database_url, autocommit=True, connect_timeout=3, row_factory=dict_row
                ) as connection:
                    await connection.execute(f"LISTEN {desired_state.CHANNEL}")
                    while True:
                        async with asyncio.timeout(ANSWER_S):
                            rows = await (await connection.execute(desired_state.READ)).fetchall()
                            faults = await (await connection.execute(READ, [self._classifier])).fetchall()
                        self.take_routes(desired_state.parsed(rows))
                        self.take_faults({row["version"]: Fault(**row["fault"]) for row in faults})
                        if learning is None or learning.done():
                            learning = asyncio.create_task(self.learn_cards())
                        async for _ in connection.notifies(timeout=LOOK_S, stop_after=1):
                            break
            except (psycopg.Error, OSError) as error:  # TimeoutError is an OSError
                logger.warning("the routes stay as they were: %s", type(error).__name__)
            await asyncio.sleep(LOOK_S)
