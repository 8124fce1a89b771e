"""API keys: who is let in, and what counts while the database is away."""

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import pytest

from serve.access.auth import Caller, KeyRing
from serve.dependencies.postgres import DatabaseUnavailableError
from serve.problems import Problem


class Keys:
    """The table of keys."""

    def __init__(self, *, away: bool = False, **roles: str) -> None:
        self.rows = [
            {"key_sha256": hashlib.sha256(key.encode()).hexdigest(), "key_id": f"id-{key}", "role": role}
            for key, role in roles.items()
        ]
        self.away = away

    async def execute(self, statement: str, parameters: tuple[str, ...] = ()) -> list[dict[str, str]]:
        if self.away:
            raise DatabaseUnavailableError("no answer")
        return [row for row in self.rows if not parameters or row["key_sha256"] == parameters[0]]

    async def close(self) -> None:
        self.away = True


def authenticated(keys: Any, header: str | None, copy: Path | None = None) -> Caller:
    async def ask() -> Caller:
        ring = KeyRing(keys, copy=copy, copy_key=bytes(range(32)))
        await ring.open()
        try:
            return await ring.authenticate(header)
        finally:
            await ring.close()

    return asyncio.run(ask())


def test_a_known_key_is_its_caller() -> None:
    assert authenticated(Keys(k1="physician"), "bearer k1") == Caller(key_id="id-k1", role="physician")


@pytest.mark.parametrize("header", [None, "", "Basic k1", "Bearer ", "Bearer other"])
def test_no_key_and_an_unknown_one_are_refused(header: str | None) -> None:
    with pytest.raises(Problem) as caught:
        authenticated(Keys(k1="client"), header)
    assert (caught.value.status, caught.value.headers["WWW-Authenticate"]) == (401, "Bearer")


def test_while_the_database_is_away_the_sealed_copy_counts_and_an_unknown_key_may_come_again(
    tmp_path: Path,
) -> None:
    copy = tmp_path / "keys"
    authenticated(Keys(k1="client"), "Bearer k1", copy)
    assert "k1" not in copy.read_text()
    assert authenticated(Keys(away=True), "Bearer k1", copy).key_id == "id-k1"
    with pytest.raises(Problem) as caught:
        authenticated(Keys(away=True), "Bearer other", copy)
    assert caught.value.status == 503


def test_a_caller_of_another_role_is_told_which_it_needs() -> None:
    with pytest.raises(Problem, match="needs a key of role physician or operator; yours is client"):
        Caller(key_id="c", role="client").need("physician", "operator")
    Caller(key_id="c", role="operator").need("physician", "operator")
