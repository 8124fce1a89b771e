"""API keys and their roles: who may call what.

Keys are stored as SHA-256 (they are 256 random bits, so no slow hash is needed). A front door holds all of them and
rereads them every `REFRESH_S` seconds, so a request costs no query and a revoked key stops within that time. While
the database is down the last reading counts, for `MAX_AGE_S`; a sealed copy on disk serves a front door that starts
meanwhile.
"""

import asyncio
import hashlib
import json
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cluster.embedded.home import write_private
from cluster.secrets import SecretError, seal, unseal
from serve.dependencies.postgres import DatabaseUnavailableError, PostgresConnection
from serve.problems import Problem, unavailable

logger = logging.getLogger(__name__)

Role = Literal["client", "physician", "operator"]
REFRESH_S = 10.0
MAX_AGE_S = 24 * 3600.0
"""Seconds that the database may be down before keys that cannot be checked are refused."""
CONTEXT = b"api-keys"


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

    def __init__(
        self, connection: PostgresConnection, *, copy: Path | None = None, copy_key: bytes = b""
    ) -> None:
        """Args:
        connection: of its own, so that unknown keys delay no other statement; closed with the key ring.
        copy: file for the sealed copy; None on a node without a place for one.
        """
        self._connection = connection
        self._copy = copy
        self._copy_key = copy_key
        self._known: dict[str, Caller] = {}
        self._read_at = float("-inf")
        """When all keys were read, seconds since 1970: the copy outlives this process."""
        self._stop = asyncio.Event()
        self._refreshing: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Load the copy and read the keys; the database may be down."""
        self._take_copy()
        await self._read()
        self._refreshing = asyncio.create_task(self._keep_fresh())

    async def close(self) -> None:
        self._stop.set()
        if self._refreshing is not None:
            await self._refreshing
        await self._connection.close()

    def usable(self) -> bool:
        """Return True if keys can be checked without the database."""
        return bool(self._known) and time.time() - self._read_at < MAX_AGE_S

    async def authenticate(self, authorization: str | None) -> Caller:
        """Return the caller behind a header.

        Raises:
            Problem: 401, no key or an unknown one; 503, it cannot be checked at the moment.
        """
        scheme, _, key = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            raise self._refusal("send a key: Authorization: Bearer KEY")
        digest = hashlib.sha256(key.strip().encode()).hexdigest()
        caller = self._known.get(digest)
        if caller is not None and time.time() - self._read_at < MAX_AGE_S:
            return caller
        return await self._ask_for(digest)

    async def _ask_for(self, digest: str) -> Caller:
        """Look up a key that was made since the last reading."""
        try:
            rows = await self._connection.execute(
                "SELECT key_id, role FROM api_keys WHERE key_sha256 = %s AND revoked_at IS NULL", (digest,)
            )
        except DatabaseUnavailableError as error:
            raise unavailable("the database") from error
        if not rows:
            raise self._refusal("this key is unknown or was revoked")
        return Caller(key_id=rows[0]["key_id"], role=rows[0]["role"])

    async def _keep_fresh(self) -> None:
        while not self._stop.is_set():
            try:
                await asyncio.wait_for(self._stop.wait(), REFRESH_S)
            except TimeoutError:
                await self._read()

    async def _read(self) -> None:
        try:
            await self._read_all()
        except DatabaseUnavailableError:
            logger.info("the database is away, and the last reading of the API keys counts")
        except Exception:
            logger.exception("cannot read the API keys; the last reading counts")

    async def _read_all(self) -> None:
        rows = await self._connection.execute(
            "SELECT key_sha256, key_id, role FROM api_keys WHERE revoked_at IS NULL"
        )
        self._known = {row["key_sha256"]: Caller(key_id=row["key_id"], role=row["role"]) for row in rows}
        self._read_at = time.time()
        await asyncio.to_thread(self._make_copy)

    def _make_copy(self) -> None:
        if self._copy is None:
            return
        keys = {digest: [caller.key_id, caller.role] for digest, caller in self._known.items()}
        text = json.dumps({"read_at": self._read_at, "keys": keys})
        try:
            write_private(self._copy, seal(text.encode(), self._copy_key, context=CONTEXT).hex())
        except OSError as error:  # a full disk must not stop the reading
            logger.warning("cannot keep a copy of the API keys: %s", error)

    def _take_copy(self) -> None:
        if self._copy is None or not self._copy.exists():
            return
        try:
            sealed = bytes.fromhex(self._copy.read_text())
            copy = json.loads(unseal(sealed, self._copy_key, context=CONTEXT))
        except (OSError, ValueError, SecretError):
            logger.exception("the copy of the API keys is unusable")
            return
        self._known = {
            digest: Caller(key_id=caller[0], role=caller[1]) for digest, caller in copy["keys"].items()
        }
        self._read_at = copy["read_at"]

    @staticmethod
    def _refusal(detail: str) -> Problem:
        return Problem(401, detail, headers={"WWW-Authenticate": "Bearer"})
