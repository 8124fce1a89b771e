"""The ASGI app of one front door, put together: routes, middleware, errors and OpenAPI."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from cluster.settings import Settings
from serve.access.auth import KeyRing
from serve.access.rate_limit import RateConfig, RateLimiter
from serve.api import health, operations, predictions
from serve.api.body_limit import MAX_BODY_BYTES, MAX_JSON_BYTES, BodyLimit
from serve.api.errors import ERROR_HANDLERS
from serve.api.middleware import RequestId
from serve.api.openapi import describe
from serve.api.services import Services
from serve.front_door.explanation_service import ExplanationService
from serve.front_door.heatmap_service import HeatmapService
from serve.front_door.prediction_service import PredictionService


def build_app(
    service: PredictionService,
    explanations: ExplanationService,
    keys: KeyRing,
    *,
    server_echoes_ids: bool = False,
    settings: Settings | None = None,
    rates: RateConfig | None = None,
) -> FastAPI:
    """Build the ASGI app of one front-door replica; it opens and closes records and keys.

    Args:
        server_echoes_ids: whether the server below sends `X-Request-Id` back by itself, as Ray Serve does.
        settings: for operators' calls; None leaves those out.
        rates: how much a key may send; None for the defaults.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await service.records.open()
        await keys.open()
        yield
        await service.mirror.close()
        await keys.close()
        await service.records.close()

    # Routes and not `include_router`, whose second search for the route costs a request 20 µs of CPU time.
    routers = [predictions.router, health.router] + ([operations.router] if settings is not None else [])
    app = FastAPI(
        title="Raydiology",
        version="1",
        lifespan=lifespan,
        redirect_slashes=False,
        routes=[route for router in routers for route in router.routes],
        exception_handlers=ERROR_HANDLERS,
    )
    app.state.services = Services(
        predictions=service,
        explanations=explanations,
        heatmaps=HeatmapService(service),
        keys=keys,
        limiter=RateLimiter(rates or RateConfig()),
        settings=settings,
    )
    app.add_middleware(BodyLimit, limit_bytes=MAX_BODY_BYTES, of_json_bytes=MAX_JSON_BYTES)
    app.add_middleware(RequestId, server_echoes=server_echoes_ids)
    describe(app)
    return app
