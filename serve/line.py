"""One connection to PostgreSQL that is asked one thing at a time, each within a deadline.

A server that is there and says nothing counts as away, like one that refuses; then nobody waits for it until a line
that probes has found it. Asked twice where a connection turns out to be stale, so every statement given to it must be
safe to repeat. Knows no table.
"""

import asyncio
import contextlib
import math
import os
import socket
from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg.rows import DictRow, dict_row

from serve.presence import Presence

MIN_CONNECT_S = 2
"""libpq's smallest limit for a connection; a longer deadline holds for connecting too."""


class AwayError(RuntimeError):
    """PostgreSQL does not answer, or not in time; what was asked may have happened all the same."""


class Line:
    def __init__(
        self, database_url: str, database: Presence, *, deadline_s: float, probes: bool = False
    ) -> None:
        """Args:
        database: told when it does not answer; all lines of a process share it.
        probes: whether this line asks also while the database is known to be away, and tells when it is back.
        """
        self.database = database
        self.deadline_s = deadline_s
        self.probes = probes
        self._url = database_url
        self._turn = asyncio.Lock()
        self._connection: psycopg.AsyncConnection[DictRow] | None = None
        self._hung_up = False

    async def ask(self, statement: str, parameters: Sequence[Any] = ()) -> list[DictRow]:
        """The rows of one statement, carried out whatever becomes of the caller.

        Raises:
            AwayError: no answer within the deadline, no connection, or the server cannot serve.
            psycopg.DataError, psycopg.IntegrityError: of the rows themselves.
        """
        return await asyncio.shield(asyncio.ensure_future(self._in_turn(statement, parameters)))

    async def close(self) -> None:
        async with self._turn:
            await self._drop()

    async def _in_turn(self, statement: str, parameters: Sequence[Any]) -> list[DictRow]:
        async with self._turn:
            if not (self.database.here or self.probes):
                raise AwayError(f"PostgreSQL does not answer: {self.database}")
            try:
                rows = await self._ask_again_if_stale(statement, parameters)
            except AwayError as error:
                self.database.lost(error)
                raise
            if self.probes:
                self.database.found()
            return rows

    async def _ask_again_if_stale(self, statement: str, parameters: Sequence[Any]) -> list[DictRow]:
        stale_is_possible = self._connection is not None
        try:
            return await self._ask(statement, parameters)
        except AwayError:
            if self._hung_up or not stale_is_possible:
                raise
        return await self._ask(statement, parameters)

    async def _ask(self, statement: str, parameters: Sequence[Any]) -> list[DictRow]:
        self._hung_up = False
        try:
            if self._connection is None:
                self._connection = await psycopg.AsyncConnection.connect(
                    self._url,
                    autocommit=True,
                    row_factory=dict_row,
                    connect_timeout=max(MIN_CONNECT_S, math.ceil(self.deadline_s)),
                )
            late = asyncio.get_running_loop().call_later(self.deadline_s, self._hang_up)
            try:
                cursor = await self._connection.execute(statement, parameters)
                return await cursor.fetchall() if cursor.description is not None else []
            finally:
                late.cancel()
        except (psycopg.OperationalError, psycopg.InterfaceError, psycopg.InternalError) as error:
            await self._drop()
            why = f"no answer within {self.deadline_s} s" if self._hung_up else type(error).__name__
            raise AwayError(f"PostgreSQL does not answer: {why}") from error

    def _hang_up(self) -> None:
        """End the wait from our side: psycopg's own cancellation would wait for the same silent server."""
        assert self._connection is not None
        self._hung_up = True
        with socket.socket(fileno=os.dup(self._connection.fileno())) as ours:
            with contextlib.suppress(OSError):  # it was cut at the other end meanwhile
                ours.shutdown(socket.SHUT_RDWR)

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()
