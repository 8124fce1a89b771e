import asyncio
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from serve.front_door.upload import parse
from serve.problems import Problem


async def show(request: Request) -> JSONResponse:
    upload = await parse(request, 10_000_000)
    return JSONResponse({**vars(upload), "blob": len(upload.blob)})


async def refuse(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Problem)
    return error.response("test")


APP = Starlette(routes=[Route("/", show, methods=["POST"])], exception_handlers={Problem: refuse})


def post(**request: Any) -> httpx.Response:
    async def send() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(APP), base_url="http://app") as api:
            return await api.post("/", **request)

    return asyncio.run(send())


FILE = {"file": ("x.png", b"\x89PNG")}


def test_all_fields_arrive() -> None:
    fields = {
        "patient_key": "p 1",
        "study_key": "s 1",
        "sex": "f",
        "age": "42.5",
        "view": "pa",
        "metadata": '{"ward": 3}',
    }
    assert post(files=FILE, data=fields).json() == {
        "blob": 4,
        "patient_key": "p 1",
        "study_key": "s 1",
        "sex": "F",
        "age": 42.5,
        "view": "PA",
        "metadata": {"ward": 3},
    }


@pytest.mark.parametrize("charset", ["undefined", "punycode", "unicode_escape", "rot13", "latin-1"])
def test_another_charset_than_utf8_is_refused(charset: str) -> None:
    body = b'--B\r\nContent-Disposition: form-data; name="patient_key"\r\n\r\n\\ud800\r\n--B--\r\n'
    kind = {"Content-Type": f"multipart/form-data; boundary=B; charset={charset}"}
    answer = post(content=body, headers=kind)
    assert answer.status_code == 400
    assert "UTF-8" in answer.json()["detail"]


@pytest.mark.parametrize("field", [b"\xff", b"\xed\xa0\x80"])
def test_bytes_that_are_no_text_are_refused(field: bytes) -> None:
    body = b'--B\r\nContent-Disposition: form-data; name="patient_key"\r\n\r\n' + field + b"\r\n--B--\r\n"
    answer = post(content=body, headers={"Content-Type": "multipart/form-data; boundary=B"})
    assert answer.status_code == 400


@pytest.mark.parametrize("number", ["NaN", "-Infinity"])
def test_metadata_is_json_as_it_is_written_down(number: str) -> None:
    answer = post(files=FILE, data={"metadata": f'{{"a": {number}}}'})
    assert answer.status_code == 400


def test_absent_and_empty_fields_are_unknown() -> None:
    got = post(files=FILE, data={"sex": "", "age": " "}).json()
    assert got == {
        "blob": 4,
        "patient_key": None,
        "study_key": None,
        "sex": None,
        "age": None,
        "view": None,
        "metadata": None,
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sex", "Jane Doe"),
        ("age", "131"),
        ("age", "-1"),
        ("age", "nan"),
        ("age", "Jane Doe"),
        ("view", "Jane Doe"),
        ("metadata", "Jane Doe"),
        ("metadata", "[1]"),
        ("metadata", "[" * 10_000),
    ],
)
def test_an_impossible_field_is_refused_by_name_and_not_repeated(name: str, value: str) -> None:
    answer = post(files=FILE, data={name: value})
    assert answer.status_code == 400
    assert f"`{name}`" in answer.json()["detail"]
    assert "Jane" not in answer.text


@pytest.mark.parametrize(
    "request_",
    [
        {"content": b"\x89PNG", "headers": {"content-type": "image/png"}},
        {"data": {"sex": "F"}, "files": {"other": ("x", b"x")}},
        {"content": b"no boundary", "headers": {"content-type": "multipart/form-data"}},
        {"content": b"--b\r\nbroken", "headers": {"content-type": "multipart/form-data; boundary=b"}},
        {"files": [("file", ("a", b"a")), ("file", ("b", b"b"))]},
        {"files": FILE, "data": {"metadata": "x" * 20_000}},
    ],
)
def test_a_malformed_body_is_refused_with_what_to_send(request_: dict[str, Any]) -> None:
    answer = post(**request_)
    assert answer.status_code == 400
    assert "`file`" in answer.json()["detail"]
    assert answer.headers["content-type"] == "application/problem+json"


def test_an_upload_that_ends_early_is_a_malformed_request_and_no_defect() -> None:
    messages = [{"type": "http.request", "body": b"--x\r\n", "more_body": True}, {"type": "http.disconnect"}]

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    headers = [(b"content-type", b"multipart/form-data; boundary=x")]
    request = Request({"type": "http", "method": "POST", "headers": headers}, receive)
    with pytest.raises(Problem, match="before it was whole"):
        asyncio.run(parse(request, 1000))
