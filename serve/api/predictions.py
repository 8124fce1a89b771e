"""Routes of clients and physicians: predictions, their explanations and heatmaps."""

import json
import re
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.routing import APIRoute
from psycopg.rows import DictRow
from starlette.responses import JSONResponse, StreamingResponse

from cluster.releases.registry import NUMBER
from serve.api.body_limit import MAX_BODY_BYTES, MAX_FILE_BYTES, BodyTooLargeError
from serve.api.openapi import AUTH_STATUSES, BEARER, UPLOAD, responses
from serve.api.services import ReadablePrediction, Services, authenticate, services_of
from serve.front_door.prediction import Explanation, Prediction, public_explanation
from serve.front_door.upload import parse
from serve.problems import Problem

VERSION_HEADER = "x-raydiology-version"
"""Names the version that has to answer, whatever the weights: for operators, and no part of a rollout's evidence."""
IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,255}")
EVENT_STREAM = "text/event-stream"

router = APIRouter()


class PlainRoute(APIRoute):
    """Gives the handler the request and takes its response: FastAPI's solving and validation are left out.

    For the one call that sites make all day; the others can afford them.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        return self.endpoint


async def predict(request: Request) -> JSONResponse:
    """Classify one X-ray. Roles: client; operator, who names the version in `X-Raydiology-Version`."""
    caller = await authenticate(request)
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
    body = await services_of(request).predictions.predict(
        upload,
        caller,
        request_id=request.state.request_id,
        idempotency_key=idempotency_key,
        version=version,
    )
    headers = {"X-Model-Version": body["model"]["version"], "Location": body["links"]["self"]}
    return JSONResponse(body, 201, headers=headers)


router.add_api_route(
    "/v1/predictions",
    predict,
    methods=["POST"],
    status_code=201,
    openapi_extra=UPLOAD,
    responses=responses(201, "answered and kept", 400, 409, 413, 415, 422, *AUTH_STATUSES, model=Prediction),
    route_class_override=PlainRoute,
)


@router.get(
    "/v1/predictions/{prediction_id}",
    openapi_extra=BEARER,
    responses=responses(200, "the stored answer", 404, *AUTH_STATUSES, model=Prediction),
)
async def prediction(row: Annotated[DictRow, Depends(ReadablePrediction("answer"))]) -> JSONResponse:
    """Return the stored answer, with its explanation when there is one. Roles: client (own), physician."""
    body = dict(row["answer"])
    if row["explanation"] is not None:
        body["explanation"] = public_explanation(row["explanation"])
    return JSONResponse(body, headers={"X-Model-Version": row["served_version"]})


@router.get(
    "/v1/predictions/{prediction_id}/explanation",
    openapi_extra=BEARER,
    responses=responses(
        200, "the explanation", 404, *AUTH_STATUSES, model=Explanation, media_types=(EVENT_STREAM,)
    ),
)
async def explanation(
    request: Request,
    row: Annotated[DictRow, Depends(ReadablePrediction("explanation"))],
    services: Annotated[Services, Depends(services_of)],
) -> Response:
    """Explain the finding in plain words; a stream of sentences when asked by `Accept: text/event-stream`."""
    if EVENT_STREAM not in request.headers.get("accept", ""):
        return JSONResponse(public_explanation(await services.explanations.explain(row)))
    return StreamingResponse(
        _server_sent(services.explanations.stream(row)),
        media_type=EVENT_STREAM,
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def _server_sent(events: AsyncIterator[dict[str, Any]]) -> AsyncIterator[str]:
    """Write events of `serve.front_door.explanation_service` as server-sent events, the last one as callers see
    an explanation.
    """
    async for event in events:
        done = event["event"] == "done"
        data = public_explanation(event["explanation"]) if done else {"text": event["text"]}
        yield f"event: {event['event']}\ndata: {json.dumps(data)}\n\n"


@router.get(
    "/v1/predictions/{prediction_id}/heatmap",
    response_class=Response,
    openapi_extra=BEARER,
    responses=responses(
        200, "a PNG, the size of the shown image", 404, 409, *AUTH_STATUSES, media_types=("image/png",)
    ),
)
async def heatmap(
    row: Annotated[DictRow, Depends(ReadablePrediction("heatmap"))],
    services: Annotated[Services, Depends(services_of)],
) -> Response:
    """Show where the version that answered looked, over the shown image. Roles: client (own), physician."""
    headers = {"X-Model-Version": row["served_version"], "Cache-Control": "no-store"}
    return Response(await services.heatmaps.png(row), media_type="image/png", headers=headers)
