"""Liveness and readiness of one front door; no key is needed."""

from typing import Literal

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse

from serve.api.openapi import responses
from serve.api.schemas import Health, Readiness
from serve.api.services import Services, services_of

router = APIRouter()


@router.head("/healthz", include_in_schema=False)
@router.get("/healthz", responses=responses(200, "this process answers"))
async def healthz() -> Health:
    """Liveness: this process answers."""
    return {"status": "alive"}


@router.head("/readyz", include_in_schema=False)
@router.get(
    "/readyz",
    responses=responses(200, "ready, or degraded", model=Readiness)
    | {503: {"description": "not ready", "model": Readiness}},
)
async def readyz(request: Request) -> JSONResponse:
    """Readiness, with the state of each dependency."""
    services = services_of(request)
    await services.predictions.records.look()
    body = _readiness(services)
    ready = body["status"] != "not ready"
    return JSONResponse(body, 200 if ready else 503, headers={} if ready else {"Retry-After": "2"})


def _readiness(services: Services) -> Readiness:
    """Judge the dependencies as last seen.

    Ready while predictions can be answered and stored, if only in the journal; degraded while anything is unavailable.
    """
    predictions, records = services.predictions, services.predictions.records
    dependencies = {
        "database": str(records.database),
        "object_store": str(records.objects),
        "journal": records.journal_state(),
    }
    routes = predictions.snapshot.routes if predictions.snapshot is not None else {}
    for model in (predictions.config.model, predictions.config.explainer):
        dependencies[model] = "ok" if model in routes else "no version is deployed"
    stores_answer = records.database.is_up and records.objects.is_up
    ready = (
        dependencies[predictions.config.model] == "ok"
        and (stores_answer or records.can_keep())
        and (records.database.is_up or services.keys.usable())
    )
    well = stores_answer and all(state.startswith("ok") for state in dependencies.values())
    status: Literal["ready", "degraded", "not ready"] = (
        ("ready" if well else "degraded") if ready else "not ready"
    )
    return {"status": status, "dependencies": dependencies}
