"""API keys and their roles: who may call what.

Keys are stored as SHA-256 (they are 256 random bits, so no slow hash is called for) and looked up through a
short cache, so that a request costs no query and a revoked key stops within `CACHE_S` seconds.
"""

import hashlib
import time
from dataclasses import dataclass
from typing import Literal

from psycopg import AsyncConnection
from psycopg.rows import DictRow
from psycopg_pool import AsyncConnectionPool

from serve.problems import Problem

Role = Literal["client", "physician", "operator"]
CACHE_S = 15.0


@dataclass(frozen=True, kw_only=True)
class Caller:
    """An authenticated caller."""

    key_id: str
    """Name of the key; safe to log."""
    role: Role

    def need(self, *roles: Role) -> None:
        """Raise 403 unless the caller has one of the roles."""
        if self.role not in roles:
            raise Problem(403, f"this call needs a key of role {' or '.join(roles)}; yours is {self.role}")


class KeyRing:
    """Authenticates `Authorization: Bearer KEY`."""

    def __init__(self, pool: AsyncConnectionPool[AsyncConnection[DictRow]]) -> None:
        self.pool = pool
        self._known: dict[str, tuple[float, Caller]] = {}

    async def authenticate(self, authorization: str | None) -> Caller:
        """The caller behind a header.

        Raises:
            Problem: 401, no key or one that we do not know.
        """
        scheme, _, key = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            raise self._refusal("send a key: Authorization: Bearer KEY")
        digest = hashlib.sha256(key.strip().encode()).hexdigest()
        now = time.monotonic()
        seen_at, caller = self._known.get(digest, (float("-inf"), None))
        if caller is not None and now - seen_at < CACHE_S:
            return caller
        async with self.pool.connection() as connection:
            row = await (
                await connection.execute(
                    "SELECT key_id, role FROM api_keys WHERE key_sha256 = %s AND revoked_at IS NULL",
                    (digest,),
                )
            ).fetchone()
        if row is None:
            self._known.pop(digest, None)
            raise self._refusal("this key is unknown or was revoked")
        caller = Caller(key_id=row["key_id"], role=row["role"])
        self._known[digest] = (now, caller)
        return caller

    @staticmethod
    def _refusal(detail: str) -> Problem:
        return Problem(401, detail, headers={"WWW-Authenticate": "Bearer"})
