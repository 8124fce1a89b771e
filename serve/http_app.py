"""The HTTP interface: routes, roles, errors, request ids. Thin over `serve.desk` and `serve.explaining`."""

import logging
import re
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from psycopg.rows import DictRow
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, StreamingResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cluster.registry import NUMBER
from cluster.settings import Settings
from serve.auth import Caller, KeyRing
from serve.body_limit import BodyLimit, BodyTooLargeError
from serve.desk import Desk
from serve.explaining import Explaining, public
from serve.heatmaps import HeatmapService
from serve.line import DatabaseUnavailableError
from serve.openapi import BEARER, UPLOAD, answers, describe
from serve.operator_calls import add_operator_calls
from serve.problems import Problem, unavailable
from serve.rate_limit import RateConfig, RateLimiter
from serve.upload import parse

logger = logging.getLogger(__name__)

MAX_FILE_BYTES = 32 * 2**20
MAX_BODY_BYTES = MAX_FILE_BYTES + 256 * 1024  # fields and multipart framing
MAX_JSON_BYTES = 32 * 1024
"""Of what operators send, which is read before their key is looked at."""
MOST_ERRORS = 20
REQUEST_ID = re.compile(r"[0-9A-Fa-f-]{16,64}")
"""What a caller's own id may be: a UUID or another hexadecimal number, which can name nobody."""
VERSION_HEADER = "x-raydiology-version"
"""Which version is to answer, whatever the weights: for operators, and no part of a rollout's evidence."""
IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,255}")

JSON = "application/json"
OF_A_KEY = (401, 403, 429, 503)
"""What every call that takes a key can end in."""


class RequestId:
    """ASGI middleware: gives each request an id and sends it back as `X-Request-Id`.

    A caller's own id is kept when it is a hexadecimal one: it is logged and stored, and a free text could be a
    name. Under Ray Serve every request has one, from HAProxy at the latest, and Serve sends it back by itself.
    """

    def __init__(self, app: ASGIApp, server_echoes: bool) -> None:
        self.app = app
        self.server_echoes = server_echoes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        plain = REQUEST_ID.fullmatch(given) is not None
        request_id = given if plain else str(uuid.uuid4())
        scope.setdefault("state", {})["request_id"] = request_id

        async def with_id(message: Message) -> None:
            if message["type"] == "http.response.start" and not (plain and self.server_echoes):
                message["headers"] = [*message.get("headers", []), (b"x-request-id", request_id.encode())]
            await send(message)

        await self.app(scope, receive, with_id)


class PlainRoute(APIRoute):
    """A route that gets the request and gives a response, without FastAPI's search for what else it may want."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler: Callable[[Request], Coroutine[Any, Any, Response]] = self.endpoint
        return handler


def build_app(
    desk: Desk,
    explaining: Explaining,
    keys: KeyRing,
    *,
    server_echoes_ids: bool = False,
    settings: Settings | None = None,
    rates: RateConfig | None = None,
) -> FastAPI:
    """The ASGI app of one front-door replica; it opens and closes records and keys.

    Args:
        server_echoes_ids: whether the server below sends `X-Request-Id` back by itself, as Ray Serve does.
        rates: how much a key may send; None for the defaults.
        settings: for what operators call; None leaves that out.
    """
    heatmaps = HeatmapService(desk)
    limiter = RateLimiter(rates or RateConfig())

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await desk.records.open()
        await keys.open()
        yield
        await desk.mirror.close()
        await keys.close()
        await desk.records.close()

    app = FastAPI(title="Raydiology", version="1", lifespan=lifespan, redirect_slashes=False)
    app.add_middleware(BodyLimit, limit_bytes=MAX_BODY_BYTES, of_json_bytes=MAX_JSON_BYTES)
    app.add_middleware(RequestId, server_echoes=server_echoes_ids)
    _add_error_handlers(app)

    async def caller_of(request: Request) -> Caller:
        caller = await keys.authenticate(request.headers.get("authorization"))
        limiter.take(caller)
        return caller

    async def own_prediction(request: Request, prediction_id: str, what: str) -> DictRow:
        """The record, if the caller may see it: its own client, or any physician, whose look is audited."""
        caller = await caller_of(request)
        caller.need("client", "physician")
        try:
            row = await desk.records.get(uuid.UUID(prediction_id))
        except ValueError:
            row = None
        if row is None or (caller.role == "client" and row["client_key_id"] != caller.key_id):
            raise Problem(404, "there is no such prediction, or it belongs to another client")
        if row["client_key_id"] != caller.key_id:
            await desk.records.note_read(caller.key_id, row["id"], what)
        return row

    async def predict(request: Request) -> JSONResponse:
        """Classify one X-ray. Roles: client; operator, who names the version in `X-Raydiology-Version`."""
        caller = await caller_of(request)
        version = request.headers.get(VERSION_HEADER)
        caller.need("client" if version is None else "operator")
        if version is not None and not re.fullmatch(NUMBER, version):
            raise Problem(400, "X-Raydiology-Version takes the number of a version")
        upload = await parse(request, MAX_BODY_BYTES)
        if len(upload.blob) > MAX_FILE_BYTES:
            raise BodyTooLargeError(MAX_FILE_BYTES)
        idempotency_key = request.headers.get("idempotency-key")
        if idempotency_key is not None and not IDEMPOTENCY_KEY.fullmatch(idempotency_key):
            raise Problem(400, "Idempotency-Key takes 1 to 255 visible ASCII characters")
        body = await desk.predict(
            upload,
            caller,
            request_id=request.state.request_id,
            idempotency_key=idempotency_key,
            version=version,
        )
        headers = {"X-Model-Version": body["model"]["version"], "Location": body["links"]["self"]}
        return JSONResponse(body, 201, headers=headers)

    app.router.add_api_route(
        "/v1/predictions",
        predict,
        methods=["POST"],
        status_code=201,
        openapi_extra=UPLOAD,
        responses=answers(201, "answered and kept", {JSON: "Prediction"}, 400, 409, 413, 415, 422, *OF_A_KEY),
        route_class_override=PlainRoute,
    )

    @app.get(
        "/v1/predictions/{prediction_id}",
        openapi_extra=BEARER,
        responses=answers(200, "the stored answer", {JSON: "Prediction"}, 404, *OF_A_KEY),
    )
    async def prediction(request: Request, prediction_id: str) -> JSONResponse:
        """The stored answer, with its explanation when there is one. Roles: client (own), physician."""
        row = await own_prediction(request, prediction_id, "answer")
        body = dict(row["answer"])
        if row["explanation"] is not None:
            body["explanation"] = public(row["explanation"])
        return JSONResponse(body, headers={"X-Model-Version": row["served_version"]})

    @app.get(
        "/v1/predictions/{prediction_id}/explanation",
        openapi_extra=BEARER,
        responses=answers(
            200, "the explanation", {JSON: "Explanation", "text/event-stream": None}, 404, *OF_A_KEY
        ),
    )
    async def explanation(request: Request, prediction_id: str) -> Response:
        """The finding in plain words; a stream of sentences when asked by `Accept: text/event-stream`."""
        row = await own_prediction(request, prediction_id, "explanation")
        if "text/event-stream" in request.headers.get("accept", ""):
            return StreamingResponse(
                explaining.stream(row),
                media_type="text/event-stream",
                headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
            )
        return JSONResponse(public(await explaining.explain(row)))

    if settings is not None:
        add_operator_calls(app, settings, caller_of)

    @app.get(
        "/v1/predictions/{prediction_id}/heatmap",
        response_class=Response,
        openapi_extra=BEARER,
        responses=answers(
            200, "a PNG, the size of the shown image", {"image/png": None}, 404, 409, *OF_A_KEY
        ),
    )
    async def heatmap(request: Request, prediction_id: str) -> Response:
        """Where the version that answered looked, over the shown image. Roles: client (own), physician."""
        row = await own_prediction(request, prediction_id, "heatmap")
        headers = {"X-Model-Version": row["served_version"], "Cache-Control": "no-store"}
        return Response(await heatmaps.png(row), media_type="image/png", headers=headers)

    @app.head("/healthz", include_in_schema=False)
    @app.get("/healthz", responses=answers(200, "this process answers", {JSON: "Health"}))
    async def healthz() -> dict[str, str]:
        """Liveness: this process answers."""
        return {"status": "alive"}

    @app.head("/readyz", include_in_schema=False)
    @app.get(
        "/readyz",
        responses=answers(200, "ready, or degraded", {JSON: "Readiness"})
        | {
            503: {
                "description": "not ready",
                "content": answers(200, "", {JSON: "Readiness"})[200]["content"],
            }
        },
    )
    async def readyz() -> JSONResponse:
        """Readiness, with the state of each dependency."""
        return await _readiness(desk, keys)

    describe(app)
    return app


async def _readiness(desk: Desk, keys: KeyRing) -> JSONResponse:
    """Ready while predictions are answered and kept, though it be in the journal; degraded when anything is away."""
    records = desk.records
    await records.look()
    found = {"database": str(records.database), "object_store": str(records.objects)}
    found["journal"] = records.journal_state()
    snapshot = desk.snapshot
    for model in (desk.config.model, desk.config.explainer):
        live = snapshot is not None and model in snapshot.routes
        found[model] = "ok" if live else "no version is deployed"
    both_here = records.database.is_up and records.objects.is_up
    ready = (
        found[desk.config.model] == "ok"
        and (both_here or records.can_keep())
        and (records.database.is_up or keys.usable())
    )
    well = both_here and all(one.startswith("ok") for one in found.values())
    status = ("ready" if well else "degraded") if ready else "not ready"
    headers = {} if ready else {"Retry-After": "2"}
    return JSONResponse({"status": status, "dependencies": found}, 200 if ready else 503, headers=headers)


def _where(error: dict[str, Any]) -> str:
    """The place in the request, by names that are ours: never by a caller's own."""
    if error["type"] == "extra_forbidden":
        return f"{error['loc'][0]}, a field that there is not"
    return ".".join(str(part) for part in error["loc"][:2])


def _add_error_handlers(app: FastAPI) -> None:
    def render(request: Request, problem: Problem) -> JSONResponse:
        return problem.response(request.state.request_id)

    @app.exception_handler(Problem)
    async def on_problem(request: Request, problem: Problem) -> JSONResponse:
        return render(request, problem)

    @app.exception_handler(BodyTooLargeError)
    async def on_too_large(request: Request, error: BodyTooLargeError) -> JSONResponse:
        return render(
            request,
            Problem(413, f"{error}; an image may have {MAX_FILE_BYTES:,} bytes, JSON {MAX_JSON_BYTES:,}"),
        )

    @app.exception_handler(HTTPException)
    async def on_http(request: Request, error: HTTPException) -> JSONResponse:
        if isinstance(
            error.__cause__, BodyTooLargeError
        ):  # FastAPI says 400 of whatever happens while it reads
            return await on_too_large(request, error.__cause__)
        return render(request, Problem(error.status_code, str(error.detail), headers=error.headers))

    @app.exception_handler(RequestValidationError)
    async def on_validation(request: Request, error: RequestValidationError) -> JSONResponse:
        where = sorted({_where(one) for one in error.errors()[:MOST_ERRORS]})
        return render(request, Problem(400, f"the request is malformed at {', '.join(where)}"))

    @app.exception_handler(DatabaseUnavailableError)
    async def on_database(request: Request, error: DatabaseUnavailableError) -> JSONResponse:
        logger.error("%s", error)
        return render(request, unavailable("the database"))

    @app.exception_handler(Exception)
    async def on_defect(request: Request, error: Exception) -> JSONResponse:
        logger.error("a request ended in %s", type(error).__name__, exc_info=error)
        return render(
            request, Problem(500, "an unexpected error; the server's log has it under this request_id")
        )
