"""Exceptions of a request as the caller sees them: without a word of the caller's own."""

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from serve.api.body_limit import BodyTooLargeError
from serve.api.errors import ERROR_HANDLERS
from serve.dependencies.postgres import DatabaseUnavailableError
from serve.problems import Problem


def too_large_while_read() -> HTTPException:
    error = HTTPException(400, "there was an error parsing the body")
    error.__cause__ = BodyTooLargeError(1000)
    return error


MALFORMED = RequestValidationError(
    [
        {"type": "extra_forbidden", "loc": ("body", "DOE^JANE"), "input": "DOE^JANE"},
        {"type": "int_parsing", "loc": ("body", "age", "int"), "input": "DOE^JANE"},
    ]
)


@pytest.mark.parametrize(
    ("error", "status", "detail"),
    [
        (Problem(409, "it is there"), 409, "it is there"),
        (HTTPException(404, "Not Found"), 404, "Not Found"),
        (too_large_while_read(), 413, "the body is larger than 1,000 bytes; an image may have"),
        (MALFORMED, 400, "the request is malformed at body, a field that there is not, body.age"),
        (DatabaseUnavailableError("connection refused at 10.0.0.7"), 503, "the database does not answer"),
        (ValueError("DOE^JANE"), 500, "an unexpected error; the server's log has it under this request_id"),
    ],
)
def test_each_exception_has_its_status_and_says_nothing_of_the_input(
    error: Exception, status: int, detail: str
) -> None:
    handler = ERROR_HANDLERS[next(kind for kind in type(error).__mro__ if kind in ERROR_HANDLERS)]
    request: Any = SimpleNamespace(state=SimpleNamespace(request_id="r1"))
    response = asyncio.run(handler(request, error))
    body = json.loads(bytes(response.body))
    assert (response.status_code, body["request_id"]) == (status, "r1")
    assert body["detail"].startswith(detail)
    assert "DOE" not in str(body)
    assert "10.0.0.7" not in str(body)
