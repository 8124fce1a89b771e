"""A PostgreSQL connection that runs one statement at a time, each under a deadline.

A server that accepts connections and does not answer counts as down, like one that refuses. While it is down, only a
connection with `is_probe` tries it. A statement on a stale connection is run a second time, so every statement must
be safe to repeat. Knows no table.
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

from serve.dependencies.health import DependencyHealth

MIN_CONNECT_S = 2
"""libpq's smallest connection timeout, seconds; a longer deadline also limits connecting."""


class DatabaseUnavailableError(RuntimeError):
    """PostgreSQL does not answer in time; the statement may have taken effect all the same."""


class PostgresConnection:
    def __init__(
        self, database_url: str, database: DependencyHealth, *, deadline_s: float, is_probe: bool = False
    ) -> None:
        """Args:
        database: marked down when it does not answer; all connections of a process share it.
        is_probe: whether this connection is used while the database is down, and marks it up again.
        """
        self.database = database
        self.deadline_s = deadline_s
        self.is_probe = is_probe
        self._url = database_url
        self._lock = asyncio.Lock()
        self._connection: psycopg.AsyncConnection[DictRow] | None = None
        self._aborted = False

    async def execute(self, statement: str, parameters: Sequence[Any] = ()) -> list[DictRow]:
        """Run one statement and return its rows; cancelling the caller does not cancel the statement.

        Raises:
            DatabaseUnavailableError: no answer within the deadline, no connection, or the server cannot serve.
            psycopg.DataError, psycopg.IntegrityError: of the rows themselves.
        """
        return await asyncio.shield(asyncio.ensure_future(self._execute_exclusively(statement, parameters)))

    async def close(self) -> None:
        async with self._lock:
            await self._drop()

    async def _execute_exclusively(self, statement: str, parameters: Sequence[Any]) -> list[DictRow]:
        async with self._lock:
            if not (self.database.is_up or self.is_probe):
                raise DatabaseUnavailableError(f"PostgreSQL does not answer: {self.database}")
            try:
                rows = await self._retry_if_stale(statement, parameters)
            except DatabaseUnavailableError as error:
                self.database.mark_down(error)
                raise
            if self.is_probe:
                self.database.mark_up()
            return rows

    async def _retry_if_stale(self, statement: str, parameters: Sequence[Any]) -> list[DictRow]:
        stale_is_possible = self._connection is not None
        try:
            return await self._run(statement, parameters)
        except DatabaseUnavailableError:
            if self._aborted or not stale_is_possible:
                raise
        return await self._run(statement, parameters)

    async def _run(self, statement: str, parameters: Sequence[Any]) -> list[DictRow]:
        self._aborted = False
        try:
            if self._connection is None:
                self._connection = await psycopg.AsyncConnection.connect(
                    self._url,
                    autocommit=True,
                    row_factory=dict_row,
                    connect_timeout=max(MIN_CONNECT_S, math.ceil(self.deadline_s)),
                )
            late = asyncio.get_running_loop().call_later(self.deadline_s, self._abort)
            try:
                cursor = await self._connection.execute(statement, parameters)
                return await cursor.fetchall() if cursor.description is not None else []
            finally:
                late.cancel()
        except (psycopg.OperationalError, psycopg.InterfaceError, psycopg.InternalError) as error:
            await self._drop()
            why = f"no answer within {self.deadline_s} s" if self._aborted else type(error).__name__
            raise DatabaseUnavailableError(f"PostgreSQL does not answer: {why}") from error

    def _abort(self) -> None:
        """Shut the socket down locally: psycopg's own cancellation would wait for the same silent server."""
        assert self._connection is not None
        self._aborted = True
        with socket.socket(fileno=os.dup(self._connection.fileno())) as duplicate:
            with contextlib.suppress(OSError):  # the other end closed it meanwhile
                duplicate.shutdown(socket.SHUT_RDWR)

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()
