"""Errors over HTTP: one exception, one shape, `application/problem+json` (RFC 9457).

A problem says what to do and never echoes the input or patient data.
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import NotRequired

from starlette.responses import JSONResponse
from typing_extensions import TypedDict

MEDIA_TYPE = "application/problem+json"


class ProblemBody(TypedDict):
    type: str
    title: str
    """The status in words."""
    status: int
    detail: str
    request_id: str
    reason: NotRequired[str]
    """Code that a program can switch on."""


class Problem(Exception):
    """An error that ends a request: raised anywhere below a route, rendered by the app."""

    def __init__(
        self, status: int, detail: str, *, reason: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        """HTTP status code."""
        self.detail = detail
        """One sentence for the caller's developer, free of the input."""
        self.reason = reason
        """Code that a program can switch on, e.g. "truncated"."""
        self.headers = dict(headers or {})

    def response(self, request_id: str) -> JSONResponse:
        body: ProblemBody = {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "request_id": request_id,
        }
        if self.reason is not None:
            body["reason"] = self.reason
        return JSONResponse(body, self.status, headers=self.headers, media_type=MEDIA_TYPE)


def unavailable(what: str, *, retry_after_s: int = 2) -> Problem:
    """Make the 503 of a dependency that does not answer; the caller may retry the same request."""
    return Problem(
        503, f"{what} does not answer at the moment; retry", headers={"Retry-After": str(retry_after_s)}
    )
