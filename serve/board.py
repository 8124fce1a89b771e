"""What a front door knows to be live, and how it learns of changes: from PostgreSQL itself, within milliseconds.

Serve's own way (`user_config`) brings the first state to a replica that starts while the database is away; the higher
revision wins, whichever way it came. So a rollback waits for no controller. Knows neither Ray nor HTTP.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import dict_row

from cluster.expected import ExpectedError
from serve import desired
from serve.card import Card
from serve.faults import READ, Fault
from serve.routing import Routes, Target

LOOK_S = 2.0
"""How often a door looks by itself, should a notification be lost; and how long it waits after an error."""
ANSWER_S = 5.0
"""After which a database that says nothing is asked over a new connection."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Board:
    """What is live: routes of each model, and the card of each version of the classifier."""

    routes: dict[str, Routes] = field(default_factory=dict)
    cards: dict[str, Card] = field(default_factory=dict)
    """By version of the classifier."""
    faults: dict[str, Fault] = field(default_factory=dict)
    """By version of the classifier."""


class BoardKeeper:
    """Keeps one front door's board up to date."""

    def __init__(
        self, read_card: Callable[[str], Card], put: Callable[[Board], None], *, classifier: str
    ) -> None:
        """Args:
        read_card: the card of a bundle; blocks.
        put: told each new board.
        """
        self._read_card = read_card
        self._put = put
        self._classifier = classifier
        self._one_reads_cards = asyncio.Lock()
        self.board = Board()

    async def take(self, found: Mapping[str, Routes]) -> None:
        """Take routes that are newer than those known, at once, and then the cards of versions that are new."""
        self.take_routes(found)
        await self.learn_cards()

    def take_routes(self, found: Mapping[str, Routes]) -> None:
        """Only the routes: what takes keys from a version waits for no store."""
        newer = {
            model: routes
            for model, routes in found.items()
            if model not in self.board.routes or routes.revision > self.board.routes[model].revision
        }
        if newer:
            self._hang(replace(self.board, routes={**self.board.routes, **newer}))

    def take_faults(self, faults: Mapping[str, Fault]) -> None:
        """Those of a game day, by version of the classifier; none where there is none."""
        if faults != self.board.faults:
            self._hang(replace(self.board, faults=dict(faults)))

    async def learn_cards(self) -> None:
        """A version whose card cannot be read stays without one, and the next call tries again."""
        async with self._one_reads_cards:
            live = self.board.routes.get(self._classifier)
            for target in live.targets if live is not None else ():
                if target.version not in self.board.cards:
                    await self._learn(target)

    async def _learn(self, target: Target) -> None:
        try:
            card = await asyncio.to_thread(self._read_card, target.bundle_key)
        except (ExpectedError, ValueError, OSError) as error:
            logger.warning("version %s has no card yet: %s", target.version, type(error).__name__)
            return
        self._hang(replace(self.board, cards={**self.board.cards, target.version: card}))

    def _hang(self, board: Board) -> None:
        self.board = board
        self._put(board)

    async def follow(self, database_url: str) -> None:
        """Take what PostgreSQL has, now and after each change, for ever; while it is away the board stays."""
        learning: asyncio.Task[None] | None = None
        while True:
            try:
                async with await AsyncConnection.connect(
                    database_url, autocommit=True, connect_timeout=3, row_factory=dict_row
                ) as connection:
                    await connection.execute(f"LISTEN {desired.CHANNEL}")
                    while True:
                        async with asyncio.timeout(ANSWER_S):
                            rows = await (await connection.execute(desired.READ)).fetchall()
                            faults = await (await connection.execute(READ, [self._classifier])).fetchall()
                        self.take_routes(desired.parsed(rows))
                        self.take_faults({row["version"]: Fault(**row["fault"]) for row in faults})
                        if learning is None or learning.done():
                            learning = asyncio.create_task(self.learn_cards())
                        async for _ in connection.notifies(timeout=LOOK_S, stop_after=1):
                            break
            except (psycopg.Error, OSError) as error:  # TimeoutError is an OSError
                logger.warning("the routes stay as they were: %s", type(error).__name__)
            await asyncio.sleep(LOOK_S)
