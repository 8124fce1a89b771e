"""The ledger in real PostgreSQL: one statement for many records, errors of one row, and reading in commit order."""

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import psycopg
import pytest

from cluster.database import connect
from cluster.objects import ObjectStore
from serve.dependencies.health import DependencyHealth
from serve.dependencies.postgres import DatabaseUnavailableError, PostgresConnection
from serve.ledger import reader as ledger
from serve.ledger.rows import INSERTS, Failure, Record, write
from serve.ledger.writer import Records, RecordsConfig
from serve.problems import Problem

T = TypeVar("T")


@pytest.fixture(autouse=True)
def client(platform: Any) -> None:
    with connect(platform.settings.database_url) as connection:
        connection.execute(
            "INSERT INTO api_keys (key_sha256, key_id, role) VALUES ('ledger', 'ledger-client', 'client') "
            "ON CONFLICT DO NOTHING"
        )


def shared(client: str) -> dict[str, Any]:
    return {
        "id": uuid.uuid4(),
        "client_key_id": client,
        "request_id": "00",
        "patient_pseudonym": "p",
        "assignment": {"key": "patient", "version": "2", "arm": "canary", "weights": {"1": 0.9, "2": 0.1}},
        "model": "xray-vit",
    }


def record(client: str = "ledger-client", label: str = "normal") -> Record:
    return Record(
        **shared(client),
        attempts=[{"version": "2", "outcome": "ok", "latency_ms": 1.5}],
        body_sha256="b",
        served_version="2",
        answer={"label": label, "abstained": False, "stored": "yes"},
        image_key="k",
        metadata={},
    )


def failure() -> Failure:
    return Failure(
        **shared("ledger-client"),
        attempts=[{"version": "2", "outcome": "deadline", "latency_ms": 2500.0}],
    )


def with_records(platform: Any, use: Callable[[Records], Awaitable[T]]) -> T:
    async def scenario() -> T:
        settings = platform.settings
        records = Records(settings.database_url, ObjectStore(settings), None, RecordsConfig(deadline_s=20))
        await records.open()
        try:
            return await use(records)
        finally:
            await records.close()

    return asyncio.run(scenario())


def read_all(connection: Any, cursor: int, batch: int = 5000) -> tuple[list[dict[str, Any]], int]:
    found: list[dict[str, Any]] = []
    while True:
        rows, cursor = ledger.read_since(connection, cursor, batch=batch)
        found += rows
        if not rows:
            return found, cursor


def test_records_that_wait_together_are_written_in_one_statement(platform: Any) -> None:
    kept = [record() for _ in range(20)]

    async def use(records: Records) -> None:
        for outcome in await asyncio.gather(*(records.keep(one, None) for one in kept)):
            assert (outcome.stored, outcome.earlier) == ("yes", None)

    with_records(platform, use)
    with connect(platform.settings.database_url) as connection:
        rows = connection.execute(
            "SELECT committed_by FROM predictions WHERE id = ANY(%s)", ([one.id for one in kept],)
        ).fetchall()
    assert len(rows) == 20
    assert len({row["committed_by"] for row in rows}) <= 2


def test_a_record_that_postgresql_refuses_is_told_to_its_caller_alone(platform: Any) -> None:
    async def use(records: Records) -> None:
        good, bad, fine = await asyncio.gather(
            records.keep(record(), None),
            records.keep(record(client="nobody"), None),
            records.keep(record(), None),
            return_exceptions=True,
        )
        assert isinstance(bad, psycopg.errors.ForeignKeyViolation)
        assert not isinstance(good, BaseException)
        assert not isinstance(fine, BaseException)

    with_records(platform, use)


def test_of_two_records_under_one_id_the_first_is_kept_and_the_second_is_told(platform: Any) -> None:
    first = record(label="normal")
    second = Record(**{**vars(first), "answer": {**first.answer, "label": "tuberculosis"}})

    async def use(records: Records) -> None:
        one, other = await asyncio.gather(records.keep(first, None), records.keep(second, None))
        assert one.earlier is None
        assert other.earlier is not None
        assert other.earlier["answer"]["label"] == "normal"
        again = await records.keep(second, None)
        assert again.earlier is not None
        assert again.earlier["answer"]["label"] == "normal"

    with_records(platform, use)


def test_answered_and_failed_requests_are_read_once_in_the_order_of_their_commits(platform: Any) -> None:
    with connect(platform.settings.database_url) as connection:
        cursor = ledger.now(connection)
        answered, failed = [record() for _ in range(7)], [failure() for _ in range(5)]

        async def use(records: Records) -> None:
            for one, other in zip(answered, [*failed, None, None], strict=True):
                await records.keep(one, None)
                if other is not None:
                    await records.keep_failure(other)

        with_records(platform, use)
        rows, cursor = read_all(connection, cursor)
        ours = [row for row in rows if row["model"] == "xray-vit" and row["patient_pseudonym"] == "p"]
        expected = [one.id for pair in zip(answered[:5], failed, strict=True) for one in pair]
        assert [row["id"] for row in ours] == expected + [one.id for one in answered[5:]]
        assert [row["label"] for row in ours][:2] == ["normal", None]
        assert ours[1]["attempts"][0]["outcome"] == "deadline"
        assert ours[0]["assignment"]["arm"] == "canary"
        assert read_all(connection, cursor)[0] == []


@pytest.mark.parametrize("batch", [1, 3, 4])
def test_small_batches_give_every_row_once(platform: Any, batch: int) -> None:
    with connect(platform.settings.database_url) as connection:
        cursor = ledger.now(connection)
        answered, failed = [record() for _ in range(6)], [failure() for _ in range(6)]

        async def use(records: Records) -> None:
            await asyncio.gather(*(records.keep(one, None) for one in answered))
            for one in failed:
                await records.keep_failure(one)

        with_records(platform, use)
        rows, _ = read_all(connection, cursor, batch)
    assert [row["id"] for row in rows if row["patient_pseudonym"] == "p"] == [
        *sorted(
            (one.id for one in answered),
            key=lambda one: next(r["created_at"] for r in rows if r["id"] == one),
        ),
        *(one.id for one in failed),
    ]


def test_a_transaction_that_commits_late_is_not_missed(platform: Any) -> None:
    url = platform.settings.database_url
    early, late = record(), record()
    statement = INSERTS["prediction"]
    with connect(url) as reader, psycopg.connect(url) as slow:
        cursor = ledger.now(reader)
        slow.execute(statement, (psycopg.types.json.Json([late.as_row()]),))

        async def use(records: Records) -> None:
            await records.keep(early, None)

        with_records(platform, use)
        held_back, cursor = read_all(reader, cursor)
        assert late.id not in [row["id"] for row in held_back]
        slow.commit()
        rows, _ = read_all(reader, cursor)
    ids = [row["id"] for row in held_back + rows]
    assert (ids.count(early.id), ids.count(late.id)) == (1, 1)


def test_reading_what_is_new_uses_the_index(platform: Any) -> None:
    with connect(platform.settings.database_url) as connection, connection.transaction():
        connection.execute("SET LOCAL enable_seqscan = off")
        plan = connection.execute("EXPLAIN " + ledger.READ, {"since": 1, "until": 2, "limit": 10}).fetchall()
    text = str(plan)
    assert "predictions_in_order" in text
    assert "failed_requests_in_order" in text


def test_a_stale_connection_costs_nobody_an_answer(platform: Any) -> None:
    async def scenario() -> None:
        line = PostgresConnection(
            platform.settings.database_url, DependencyHealth("PostgreSQL"), is_probe=True, deadline_s=2
        )
        ((pid,),) = [tuple(row.values()) for row in await line.execute("SELECT pg_backend_pid()")]
        with connect(platform.settings.database_url) as connection:
            connection.execute("SELECT pg_terminate_backend(%s)", (pid,))
        await asyncio.sleep(0.2)
        assert await line.execute("SELECT 1 AS one") == [{"one": 1}]
        await line.close()

    asyncio.run(scenario())


def test_a_statement_that_takes_too_long_counts_as_away_and_the_next_is_answered(platform: Any) -> None:
    async def scenario() -> None:
        line = PostgresConnection(
            platform.settings.database_url, DependencyHealth("PostgreSQL"), is_probe=True, deadline_s=0.3
        )
        with pytest.raises(DatabaseUnavailableError, match="within"):
            await line.execute("SELECT pg_sleep(5)")
        assert await line.execute("SELECT 1 AS one") == [{"one": 1}]
        await line.close()

    asyncio.run(scenario())


def test_while_the_database_is_away_nobody_waits_for_it_but_who_probes(platform: Any) -> None:
    async def scenario() -> None:
        database = DependencyHealth("PostgreSQL")
        asking = PostgresConnection(platform.settings.database_url, database, deadline_s=0.5)
        with pytest.raises(DatabaseUnavailableError):
            await asking.execute("SELECT pg_sleep(5)")
        assert not database.is_up
        started_at = time.monotonic()
        with pytest.raises(DatabaseUnavailableError, match="away"):
            await asking.execute("SELECT 1")
        assert time.monotonic() - started_at < 0.1
        probing = PostgresConnection(platform.settings.database_url, database, deadline_s=0.5, is_probe=True)
        await probing.execute("SELECT 1")
        assert database.is_up
        assert await asking.execute("SELECT 1 AS one") == [{"one": 1}]
        await asking.close()
        await probing.close()

    asyncio.run(scenario())


def test_a_caller_that_leaves_does_not_break_the_line(platform: Any) -> None:
    async def scenario() -> None:
        line = PostgresConnection(
            platform.settings.database_url, DependencyHealth("PostgreSQL"), is_probe=True, deadline_s=2
        )
        leaving = asyncio.create_task(line.execute("SELECT pg_sleep(0.3)"))
        await asyncio.sleep(0.1)
        leaving.cancel()
        assert await line.execute("SELECT 1 AS one") == [{"one": 1}]
        await line.close()

    asyncio.run(scenario())


def test_rows_written_twice_are_there_once(platform: Any) -> None:
    async def scenario() -> None:
        line, row = (
            PostgresConnection(
                platform.settings.database_url, DependencyHealth("PostgreSQL"), is_probe=True, deadline_s=2
            ),
            record().as_row(),
        )
        assert await write(line, INSERTS["prediction"], [row]) == [True]
        assert await write(line, INSERTS["prediction"], [row]) == [False]
        await line.close()

    asyncio.run(scenario())


def test_without_journal_and_database_a_record_is_refused(platform: Any) -> None:
    async def scenario() -> None:
        records = Records(
            "postgresql://nobody:nothing@127.0.0.1:1/raydiology", ObjectStore(platform.settings), None
        )
        with pytest.raises(Problem, match="the database"):
            await records.keep(record(), None)
        reached = Records(platform.settings.database_url, ObjectStore(platform.settings), None)
        with pytest.raises(Problem, match="the object store"):
            await reached.keep(record(), b"png")

    asyncio.run(scenario())
