import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route

from serve.api.body_limit import BodyLimit, BodyTooLargeError

LIMIT = 1000


async def length(request: Request) -> PlainTextResponse:
    return PlainTextResponse(str(len(await request.body())))


async def refuse(_: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": str(error)}, 413)


APP = BodyLimit(
    Starlette(routes=[Route("/", length, methods=["POST"])], exception_handlers={BodyTooLargeError: refuse}),
    LIMIT,
)


def post(content: bytes | AsyncIterator[bytes]) -> httpx.Response:
    async def send() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(APP), base_url="http://app") as api:
            return await api.post("/", content=content)

    return asyncio.run(send())


@pytest.mark.parametrize("size", [0, 1, LIMIT])
def test_a_body_up_to_the_limit_passes(size: int) -> None:
    assert post(b"x" * size).text == str(size)


def test_what_is_no_multipart_body_has_a_limit_of_its_own() -> None:
    app = BodyLimit(APP.app, LIMIT, of_json_bytes=10)

    async def status(kind: str, size: int) -> int:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://app") as api:
            return (await api.post("/", content=b"x" * size, headers={"Content-Type": kind})).status_code

    sizes = [("Multipart/form-data; boundary=b", LIMIT), ("application/json", 10), ("application/json", 11)]
    assert [asyncio.run(status(*one)) for one in sizes] == [200, 200, 413]


def test_a_declared_length_over_the_limit_is_refused_before_anything_is_read() -> None:
    assert post(b"x" * (LIMIT + 1)).status_code == 413


def test_an_undeclared_body_is_cut_off_where_it_crosses_the_limit() -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(100):
            sent += 100
            yield b"x" * 100

    assert post(endless()).status_code == 413
    assert sent <= LIMIT + 200
