"""A fuzzer holds the running app against its own OpenAPI document: made-up input, answers as declared."""

import asyncio
import threading
from collections.abc import Iterator

import httpx
import jsonschema_rs
import pytest
import schemathesis
import uvicorn
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    ignored_auth,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.services import test_front_door as front

decoder, door = front.decoder, front.door
SETTINGS = settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
    ignored_auth,
]


@pytest.fixture
def address(door: front.Door) -> Iterator[str]:
    """The app on a port of its own, as long as the test runs."""
    up, found = threading.Event(), {}

    async def serve(app: FastAPI, _: httpx.AsyncClient) -> None:
        server = uvicorn.Server(uvicorn.Config(app, port=0, lifespan="off", log_level="error"))
        server.install_signal_handlers = lambda: None  # type: ignore[method-assign]
        running = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.05)
        found["server"] = server
        found["port"] = server.servers[0].sockets[0].getsockname()[1]
        up.set()
        await running

    thread = threading.Thread(
        target=lambda: asyncio.run(door._with(serve, door.settings.database_url)), daemon=True
    )
    thread.start()
    assert up.wait(60)
    yield f"http://127.0.0.1:{found['port']}"
    found["server"].should_exit = True
    thread.join(30)


OPERATIONS = [
    (path, method)
    for path, method in front.MATRIX
    if path.startswith(("/v1", "/healthz", "/readyz")) and method != "HEAD"
]


# The app, in a thread beside, uses `random` too, which Hypothesis takes for the strategy's doing.
@pytest.mark.filterwarnings(
    "ignore:Do not use the `random` module:hypothesis.errors.HypothesisDeprecationWarning"
)
@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_every_answer_is_one_that_the_document_declares(address: str, path: str, method: str) -> None:
    operation = schemathesis.openapi.from_url(f"{address}/openapi.json")[path][method]
    key = {"Authorization": f"Bearer {front.KEYS['client']}"}
    seen: set[int] = set()

    def hold(case: schemathesis.Case) -> None:
        answer = case.call(headers=key)
        seen.add(answer.status_code)
        case.validate_response(answer, checks=CHECKS)

    for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
        try:
            strategy = operation.as_strategy(generation_mode=mode)
            SETTINGS(given(case=strategy)(hold))()
        except Unsatisfiable:  # nothing can be wrong about a call that takes nothing
            assert mode is GenerationMode.NEGATIVE
    assert seen, "nothing was asked"


def test_real_answers_are_what_the_document_says(address: str) -> None:
    """What a fuzzer does not reach: it has no X-ray."""
    document = httpx.get(f"{address}/openapi.json").json()
    key = {"Authorization": f"Bearer {front.KEYS['client']}"}
    with httpx.Client(base_url=address, headers=key, timeout=60) as api:
        answer = api.post("/v1/predictions", files={"file": ("x.png", front.png())})
        assert answer.status_code == 201, answer.text
        links = answer.json()["links"]
        told = {
            "Prediction": [answer, api.get(links["self"])],
            "Explanation": [api.get(links["explanation"])],
            "Problem": [
                api.get("/v1/predictions/none"),
                api.get(links["self"], headers={"Authorization": ""}),
            ],
            "Health": [api.get("/healthz")],
            "Readiness": [api.get("/readyz")],
        }
    for name, answers in told.items():
        validator = jsonschema_rs.validator_for({"$ref": f"#/components/schemas/{name}", **document})
        for one in answers:
            validator.validate(one.json())
        lacking = {
            key: value for key, value in answers[0].json().items() if key not in ("id", "text", "status")
        }
        assert not validator.is_valid(lacking)


def test_the_document_lists_every_error_and_needs_a_key_where_the_app_does(address: str) -> None:
    document = httpx.get(f"{address}/openapi.json").json()
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert operation.get("security", []) == ([{"bearer": []}] if path.startswith("/v1") else [])
            wanted = {"401", "403", "429", "503"} if path.startswith("/v1") else {"200"}
            assert wanted <= set(operation["responses"])
    names = {one for one in front.MATRIX if one[0].startswith(("/v1", "/readyz"))}
    assert {path for path, _ in names} <= set(document["paths"])
    assert document["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
