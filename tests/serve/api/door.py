"""A front door in this process, without stores, and one response of each kind from it."""

import asyncio
import io
import uuid
from collections.abc import AsyncIterator
from typing import Any

import httpx
import numpy as np
from PIL import Image

from data.imaging.preprocess import Decoded, decode
from data.sandbox.decoder import Decoder
from serve.access.auth import Caller
from serve.api.app import build_app
from serve.classifier.answer import Classified
from serve.dependencies.health import DependencyHealth
from serve.front_door.attempts import InfrastructureError
from serve.front_door.explanation_service import ExplanationService
from serve.front_door.prediction_service import PredictionConfig, PredictionService
from serve.front_door.serving_snapshot import ServingSnapshot
from serve.ledger.image_writer import Images
from serve.ledger.rows import Record
from serve.ledger.writer import StoreOutcome
from serve.routing.routes import Routes, Target
from tests.cards import card


class InProcess(Decoder):
    def __init__(self) -> None:
        """Without children."""

    def decode(self, blob: bytes, **_: Any) -> Decoded:
        return decode(blob)


class Forgetful(Images):
    def __init__(self) -> None:
        """Without a server."""

    async def keep(self, key: str, shown_HW: np.ndarray) -> bytes | None:
        return None


class ChampionOnly:
    """The canary never answers, and there is no language model."""

    async def classify(self, target: Target, pixels_HW: np.ndarray, judged: bool) -> Classified:
        if target.role == "canary":
            raise InfrastructureError("gone")
        return Classified(probabilities_C=np.array([0.82, *[0.02] * 9]))

    def away(self, target: Target, since_s: float) -> str | None:
        return None

    async def explain(self, target: Target, finding: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        raise InfrastructureError("away")
        yield {}


class InMemory:
    """Records of this process, one client's."""

    def __init__(self) -> None:
        self.rows: dict[uuid.UUID, dict[str, Any]] = {}
        self.database, self.objects = DependencyHealth("PostgreSQL"), DependencyHealth("the object store")

    async def keep(self, record: Record, image: bytes | None) -> StoreOutcome:
        self.rows[record.id] = vars(record) | {"explanation": None}
        return StoreOutcome(stored="yes")

    async def get(self, prediction_id: uuid.UUID) -> dict[str, Any] | None:
        return self.rows.get(prediction_id)

    async def add_explanation(self, prediction_id: uuid.UUID, explanation: dict[str, Any]) -> dict[str, Any]:
        self.rows[prediction_id]["explanation"] = explanation
        return explanation

    async def look(self) -> None:
        """Nothing is ever away."""

    def can_keep(self) -> bool:
        return True

    def journal_state(self) -> str:
        return "ok"


class OneClient:
    async def authenticate(self, authorization: str | None) -> Caller:
        return Caller(key_id="client", role="client")

    def usable(self) -> bool:
        return True


def png() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)).save(file, "PNG")
    return file.getvalue()


def answers(routes: Routes) -> dict[str, httpx.Response]:
    """One response of each kind, by what it is."""
    records: Any = InMemory()
    models: Any = ChampionOnly()
    keys: Any = OneClient()
    nowhere: Any = None
    service = PredictionService(
        models=models,
        decoder=InProcess(),
        store=nowhere,
        records=records,
        encryption_key=b"e" * 32,
        pseudonym_key=b"p" * 32,
        config=PredictionConfig(),
    )
    service.images = Forgetful()
    service.snapshot = ServingSnapshot(routes={"xray-vit": routes}, cards={"1": card(), "2": card()})
    app = build_app(service, ExplanationService(service), keys)

    async def ask() -> dict[str, httpx.Response]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://door") as api:
            posted = await api.post("/v1/predictions", files={"file": ("x.png", png())})
            links = posted.json()["links"]
            stream = {"Accept": "text/event-stream"}
            return {
                "document": await api.get("/openapi.json"),
                "posted": posted,
                "streamed": await api.get(links["explanation"], headers=stream),
                "explanation": await api.get(links["explanation"]),
                "stored": await api.get(links["self"]),
                "problem": await api.get("/v1/predictions/none"),
                "health": await api.get("/healthz"),
                "readiness": await api.get("/readyz"),
            }

    return asyncio.run(ask())
