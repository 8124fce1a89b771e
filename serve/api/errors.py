"""Exceptions of a request → `application/problem+json`, without a word of the caller's own."""

import logging
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from serve.api.body_limit import MAX_FILE_BYTES, MAX_JSON_BYTES, BodyTooLargeError
from serve.dependencies.postgres import DatabaseUnavailableError
from serve.problems import Problem, unavailable

logger = logging.getLogger(__name__)

MOST_ERRORS = 20


def _too_large(error: Any) -> Problem:
    return Problem(413, f"{error}; an image may have {MAX_FILE_BYTES:,} bytes, JSON {MAX_JSON_BYTES:,}")


def _http(error: Any) -> Problem:
    if isinstance(error.__cause__, BodyTooLargeError):  # FastAPI answers 400 to any error while it reads
        return _too_large(error.__cause__)
    return Problem(error.status_code, str(error.detail), headers=error.headers)


def _malformed(error: Any) -> Problem:
    places = sorted({_place(detail) for detail in error.errors()[:MOST_ERRORS]})
    return Problem(400, f"the request is malformed at {', '.join(places)}")


def _place(detail: dict[str, Any]) -> str:
    """Name a place in the request by our own names, never by a caller's."""
    if detail["type"] == "extra_forbidden":
        return f"{detail['loc'][0]}, a field that there is not"
    return ".".join(str(part) for part in detail["loc"][:2])


def _database(error: Any) -> Problem:
    logger.error("%s", error)
    return unavailable("the database")


def _defect(error: Any) -> Problem:
    logger.error("a request ended in %s", type(error).__name__, exc_info=error)
    return Problem(500, "an unexpected error; the server's log has it under this request_id")


def _handler(to_problem: Callable[[Any], Problem]) -> Callable[[Request, Any], Coroutine[Any, Any, Response]]:
    async def handle(request: Request, error: Exception) -> Response:
        return to_problem(error).response(request.state.request_id)

    return handle


ERROR_HANDLERS: dict[Any, Callable[[Request, Any], Coroutine[Any, Any, Response]]] = {
    Problem: _handler(lambda problem: problem),
    BodyTooLargeError: _handler(_too_large),
    HTTPException: _handler(_http),
    RequestValidationError: _handler(_malformed),
    DatabaseUnavailableError: _handler(_database),
    Exception: _handler(_defect),
}
"""By class of the exception."""
