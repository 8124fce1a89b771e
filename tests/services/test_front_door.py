"""The front door over real PostgreSQL and S3; models in this process through the desk's seam."""

import asyncio
import hashlib
import io
import json
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from cluster.database import connect
from cluster.objects import ObjectStore
from cluster.settings import Settings
from data.preprocess import PREPROCESS_VERSION, PixelConfig
from data.sandbox import Decoder
from data.taxonomy import taxonomy
from serve.attempts import InfrastructureError, ModelError
from serve.auth import KeyRing
from serve.board import Board
from serve.card import Card
from serve.desk import Desk, DeskConfig
from serve.explaining import Explaining
from serve.http_app import MAX_FILE_BYTES, build_app
from serve.line import Line
from serve.records import Records, RecordsConfig
from serve.routing import Routes, Target, reweighted

PATIENT_S = 20.0
"""For a statement on a busy machine: what happens to a slow one is in test_front_door_away.py."""
KEYS = {"client": "c" * 40, "other": "o" * 40, "physician": "p" * 40, "operator": "q" * 40}
CARD = Card.from_json(
    json.dumps(
        {
            "format": 1,
            "model": "xray-vit",
            "classes": taxonomy().names,
            "architecture": {"timm": "vit_tiny_patch16_224", "kwargs": {}},
            "pixels": {"side": 64},
            "preprocess_version": PREPROCESS_VERSION,
            "calibration": {
                "temperature": 1.0,
                "conformal_threshold": 0.4,
                "coverage": 0.9,
                "abstain_below": 0.3,
            },
            "dataset_version": "d",
            "synthetic": True,
        }
    )
)


def sound() -> np.ndarray:
    probabilities_C = np.full(10, 0.02)
    probabilities_C[1] = 0.82
    return probabilities_C


@dataclass
class LocalModels:
    """Answers in this process: each role does what the test asks."""

    canary: Callable[[], np.ndarray] = lambda: np.full(10, 0.1)
    champion: Callable[[], np.ndarray] = sound
    seen: list[tuple[str, tuple[int, ...]]] = field(default_factory=list)

    async def classify(self, target: Target, pixels_HW: np.ndarray) -> np.ndarray:
        self.seen.append((target.version, pixels_HW.shape))
        return self.canary() if target.role == "canary" else self.champion()

    async def explain(self, target: Target, finding: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        raise InfrastructureError("away")
        yield {}


@dataclass
class Door:
    """The app under test, with helpers that speak HTTP to it."""

    settings: Settings
    models: LocalModels
    decoder: Decoder
    canary_weight: float = 0.0

    def requests(self, *requests: dict[str, Any], database_url: str | None = None) -> list[httpx.Response]:
        return asyncio.run(self._requests(requests, database_url or self.settings.database_url))

    async def _requests(self, requests: tuple[dict[str, Any], ...], url: str) -> list[httpx.Response]:
        store = ObjectStore(self.settings)
        records = Records(url, store, None, RecordsConfig(deadline_s=PATIENT_S))
        desk = Desk(
            models=self.models,
            decoder=self.decoder,
            store=store,
            records=records,
            encryption_key=b"e" * 32,
            pseudonym_key=b"p" * 32,
            config=DeskConfig(classify_deadline_s=1.0),
        )
        canary = self.canary_weight
        routes = Routes(
            model="xray-vit",
            targets=(
                Target(version="1", role="champion", bundle_key="bundles/1"),
                Target(version="2", role="canary", bundle_key="bundles/2"),
            ),
        )
        desk.board = Board(
            routes={"xray-vit": reweighted(routes, {"2": canary})}, cards={"1": CARD, "2": CARD}
        )
        app = build_app(desk, Explaining(desk), KeyRing(Line(url, records.database, deadline_s=PATIENT_S)))
        async with app.router.lifespan_context(app):
            transport = httpx.ASGITransport(app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://door", timeout=30) as api:
                return [await api.request(**one) for one in requests]


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    with Decoder() as decoder:
        yield decoder


@pytest.fixture
def door(platform: Any, decoder: Decoder) -> Door:
    settings = platform.settings
    with connect(settings.database_url) as connection:
        for name, key in KEYS.items():
            connection.execute(
                "INSERT INTO api_keys (key_sha256, key_id, role) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
                (
                    hashlib.sha256(key.encode()).hexdigest(),
                    f"test-{name}",
                    "client" if name == "other" else name,
                ),
            )
    return Door(settings=settings, models=LocalModels(), decoder=decoder)


def png(side: int = 64) -> bytes:
    buffer = io.BytesIO()
    pixels_HW = np.random.default_rng(0).integers(0, 255, (side, side)).astype(np.uint8)
    Image.fromarray(pixels_HW).save(buffer, "PNG")
    return buffer.getvalue()


def post(
    blob: bytes, who: str | None = "client", headers: dict[str, str] | None = None, **fields: str
) -> Any:
    return {
        "method": "POST",
        "url": "/v1/predictions",
        "files": {"file": ("x.png", blob)},
        "data": fields,
        "headers": _key(who) | (headers or {}),
    }


def get(url: str, who: str | None = "client", **headers: str) -> dict[str, Any]:
    return {"method": "GET", "url": url, "headers": _key(who) | headers}


def _key(who: str | None) -> dict[str, str]:
    return {} if who is None else {"Authorization": f"Bearer {KEYS.get(who, who)}"}


def test_a_prediction_is_answered_stored_and_read_again(door: Door) -> None:
    patient = f"Jane Doe {uuid.uuid4()}"
    (answer,) = door.requests(post(png(), patient_key=patient, sex="F", metadata='{"name": "Jane Doe"}'))
    assert answer.status_code == 201, answer.text
    body = answer.json()
    assert body["label"] == "bacterial_pneumonia"
    assert set(body["probabilities"]) == set(taxonomy().names)
    assert body["prediction_set"] == ["bacterial_pneumonia"]
    assert answer.headers["x-model-version"] == "1"
    assert uuid.UUID(answer.headers["x-request-id"])
    (again,) = door.requests(get(answer.headers["location"]))
    assert again.json() == body
    with connect(door.settings.database_url) as connection:
        row = connection.execute("SELECT * FROM predictions WHERE id = %s", (body["id"],)).fetchone()
    assert row is not None
    assert "Jane" not in str(row)
    assert row["assignment"]["key"] == "patient"
    assert [one["outcome"] for one in row["attempts"]] == ["ok"]
    stored = ObjectStore(door.settings).get("predictions", row["image_key"])
    assert Image.open(io.BytesIO(stored)).size == (64, 64)


def test_a_retry_under_one_idempotency_key_gets_the_same_answer_and_makes_one_record(door: Door) -> None:
    key = {"Idempotency-Key": uuid.uuid4().hex}
    blob = png()
    first, second, other_client, conflict = door.requests(
        post(blob, headers=key),
        post(blob, headers=key),
        post(blob, who="other", headers=key),
        post(png(80), headers=key),
    )
    assert first.json() == second.json()
    assert other_client.json()["id"] != first.json()["id"]
    assert conflict.status_code == 409
    assert len(door.models.seen) == 2


@pytest.mark.parametrize(
    ("who", "status"), [(None, 401), ("unknown", 401), ("physician", 403), ("operator", 403)]
)
def test_a_key_of_the_wrong_role_or_none_is_refused(door: Door, who: str | None, status: int) -> None:
    (answer,) = door.requests(post(png(), who=who))
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert ("www-authenticate" in answer.headers) == (status == 401)


def test_a_prediction_is_its_clients_own_and_open_to_physicians(door: Door) -> None:
    (answer,) = door.requests(post(png()))
    url = answer.json()["links"]["self"]
    got = door.requests(*(get(url, who) for who in ("client", "physician", "other", "operator", None)))
    assert [one.status_code for one in got] == [200, 200, 404, 403, 401]


@pytest.mark.parametrize("unknown", [str(uuid.UUID(int=0)), "no-uuid", "%2e%2e"])
def test_an_unknown_id_is_not_found(door: Door, unknown: str) -> None:
    (answer,) = door.requests(get(f"/v1/predictions/{unknown}"))
    assert answer.status_code == 404


@pytest.mark.parametrize(
    ("blob", "status", "reason"),
    [
        (b"hello there", 415, None),
        (b"", 422, "empty"),
        (png()[:200], 422, "truncated"),
        (png(16), 422, "too_small"),
    ],
)
def test_a_bad_image_is_refused_and_leaves_no_record(
    door: Door, blob: bytes, status: int, reason: str | None
) -> None:
    (answer,) = door.requests(post(blob))
    assert answer.status_code == status
    assert answer.json().get("reason") == reason
    assert not door.models.seen


def test_a_body_over_the_limit_is_refused(door: Door) -> None:
    (answer,) = door.requests(post(b"x" * (MAX_FILE_BYTES + 2**20)))
    assert answer.status_code == 413


def test_an_absent_database_is_a_503_with_retry_after_and_named_by_readyz(door: Door) -> None:
    away = "postgresql://nobody:nothing@127.0.0.1:1/raydiology"
    answer, ready, alive = door.requests(
        post(png()), get("/readyz", None), get("/healthz", None), database_url=away
    )
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    assert ready.status_code == 503
    assert ready.json()["dependencies"]["database"].startswith("away")
    assert alive.status_code == 200


def broken() -> np.ndarray:
    raise ModelError("boom")


def unreachable() -> np.ndarray:
    raise InfrastructureError("gone")


@pytest.mark.parametrize(
    ("canary", "outcome"),
    [
        (broken, "model_error"),
        (unreachable, "infrastructure"),
        (lambda: np.full(10, 0.5), "invalid_output"),
        (lambda: np.full(10, np.nan), "invalid_output"),
        (lambda: np.ones(3) / 3, "invalid_output"),
    ],
)
def test_a_canary_that_fails_is_replaced_by_the_champion_and_the_ledger_says_so(
    door: Door, canary: Callable[[], np.ndarray], outcome: str
) -> None:
    door.models.canary = canary
    door.canary_weight = 0.999
    (answer,) = door.requests(post(png()))
    assert answer.status_code == 201
    assert answer.json()["fallback_from"] == "2"
    assert answer.headers["x-model-version"] == "1"
    with connect(door.settings.database_url) as connection:
        row = connection.execute(
            "SELECT attempts FROM predictions WHERE id = %s", (answer.json()["id"],)
        ).fetchone()
    assert row is not None
    assert [(one["version"], one["outcome"]) for one in row["attempts"]] == [("2", outcome), ("1", "ok")]


def test_a_request_that_no_version_answers_is_in_the_ledger_and_its_retry_is_answered_anew(
    door: Door,
) -> None:
    door.models.canary = door.models.champion = broken
    door.canary_weight = 0.999
    key, request_id = {"Idempotency-Key": uuid.uuid4().hex}, uuid.uuid4().hex
    (failed,) = door.requests(post(png(), headers={**key, "X-Request-Id": request_id}, patient_key="p"))
    assert failed.status_code == 503
    assert int(failed.headers["retry-after"]) > 0
    with connect(door.settings.database_url) as connection:
        row = connection.execute(
            "SELECT * FROM failed_requests WHERE request_id = %s", (request_id,)
        ).fetchone()
    assert row is not None
    assert row["assignment"]["version"] == "2"
    assert [(one["version"], one["outcome"]) for one in row["attempts"]] == [
        ("2", "model_error"),
        ("1", "model_error"),
    ]
    door.models.champion = sound
    (retry,) = door.requests(post(png(), headers=key, patient_key="p"))
    assert retry.status_code == 201


def test_without_a_language_model_the_template_explains_and_is_kept(door: Door) -> None:
    (answer,) = door.requests(post(png()))
    url = answer.json()["links"]["explanation"]
    first, streamed, record = door.requests(
        get(url), get(url, Accept="text/event-stream"), get(answer.json()["links"]["self"])
    )
    assert first.json()["fallback"] is True
    assert "82" in first.json()["text"]
    assert streamed.headers["content-type"].startswith("text/event-stream")
    assert json.loads(streamed.text.rsplit("data: ", 1)[1]) == first.json()
    assert record.json()["explanation"] == first.json()


def test_pixels_are_those_of_the_versions_own_settings(door: Door) -> None:
    door.requests(post(png(100)))
    assert door.models.seen == [("1", (CARD.pixels.side, CARD.pixels.side))]
    assert CARD.pixels == PixelConfig(side=64)
