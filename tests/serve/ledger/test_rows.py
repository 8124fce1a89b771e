"""Rows are written in one statement, and a bad row is told from the good ones."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import psycopg

from serve.ledger.rows import Failure, write


class Table:
    """A table with ids; one of them cannot be stored."""

    def __init__(self, refused: str = "") -> None:
        self.ids: list[str] = []
        self.refused = refused
        self.statements = 0

    async def execute(self, statement: str, parameters: tuple[str]) -> list[dict[str, str]]:
        self.statements += 1
        ids = [row["id"] for row in json.loads(parameters[0])]
        if self.refused in ids:
            raise psycopg.DataError("out of range")
        new = [row_id for row_id in ids if row_id not in self.ids]
        self.ids += new
        return [{"id": row_id} for row_id in new]


def written(table: Any, *ids: str) -> Sequence[bool | Exception]:
    return asyncio.run(write(table, "INSERT", [{"id": row_id} for row_id in ids]))


def test_rows_go_in_one_statement_in_the_order_of_their_ids() -> None:
    table = Table()
    assert written(table, "b", "a", "c") == [True, True, True]
    assert (table.ids, table.statements) == (["a", "b", "c"], 1)


def test_of_equal_ids_the_first_row_is_written() -> None:
    table = Table()
    assert written(table, "a", "b", "a") == [True, True, False]
    assert written(table, "a", "c") == [False, True]


def test_a_row_that_is_refused_costs_no_other_row() -> None:
    table = Table(refused="b")
    first, second, third = written(table, "a", "b", "c")
    assert (first, third) == (True, True)
    assert isinstance(second, psycopg.DataError)


def test_a_row_is_json() -> None:
    row = Failure(
        id=UUID(int=1), created_at="2026-11-26", client_key_id="c", request_id="r", patient_pseudonym=None,
        assignment={}, attempts=[], model="xray-vit",
    )  # fmt: skip
    assert json.loads(json.dumps(row.as_row()))["id"] == str(UUID(int=1))
