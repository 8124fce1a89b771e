"""What the routes share: the services of one front door, and the dependencies that say who calls.

The key is checked before the body: FastAPI solves dependencies first, and `POST /v1/predictions` calls them itself.
"""

import uuid
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from psycopg.rows import DictRow

from cluster.settings import Settings
from serve.access.auth import Caller, KeyRing
from serve.access.rate_limit import RateLimiter
from serve.control import environments
from serve.front_door.explanation_service import ExplanationService
from serve.front_door.heatmap_service import HeatmapService
from serve.front_door.prediction_service import PredictionService
from serve.problems import Problem


@dataclass(frozen=True, kw_only=True)
class Services:
    """Kept as `app.state.services`."""

    predictions: PredictionService
    explanations: ExplanationService
    heatmaps: HeatmapService
    keys: KeyRing
    limiter: RateLimiter
    settings: Settings | None
    """For operators' calls; None where there are none."""


def services_of(request: Request) -> Services:
    return request.app.state.services


def settings_of(request: Request) -> Settings:
    settings = services_of(request).settings
    assert settings is not None, "operators' calls are routed with settings only"
    return settings


async def authenticate(request: Request) -> Caller:
    """Identify the caller by the key, and count the request.

    Raises:
        Problem: 401, 429 or 503.
    """
    services = services_of(request)
    caller = await services.keys.authenticate(request.headers.get("authorization"))
    services.limiter.take(caller)
    return caller


async def operator(caller: Annotated[Caller, Depends(authenticate)]) -> str:
    """Return the name of the operator's key; raises 403 for other roles."""
    caller.need("operator")
    return caller.key_id


async def fault_operator(
    actor: Annotated[str, Depends(operator)], settings: Annotated[Settings, Depends(settings_of)]
) -> str:
    """Return the name of the operator's key; raises 403 where no faults may be injected."""
    if settings.environment not in (allowed := environments.allowing_faults(settings)):
        raise Problem(
            403, f"faults are injected in {' and '.join(allowed)} only; this is {settings.environment}"
        )
    return actor


class ReadablePrediction:
    """Dependency: the record of a prediction that the caller may read, its own client or any physician.

    A physician's look is audited before anything is shown.
    """

    def __init__(self, subject: str) -> None:
        """Args:
        subject: what is shown of the prediction, for the audit.
        """
        self._subject = subject

    async def __call__(
        self, request: Request, caller: Annotated[Caller, Depends(authenticate)], prediction_id: str
    ) -> DictRow:
        caller.need("client", "physician")
        records = services_of(request).predictions.records
        try:
            row = await records.get(uuid.UUID(prediction_id))
        except ValueError:
            row = None
        if row is None or (caller.role == "client" and row["client_key_id"] != caller.key_id):
            raise Problem(404, "there is no such prediction, or it belongs to another client")
        if row["client_key_id"] != caller.key_id:
            await records.note_read(caller.key_id, row["id"], self._subject)
        return row
