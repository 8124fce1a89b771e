"""The front door over real PostgreSQL and S3; models in this process through the service's seam."""

import asyncio
import hashlib
import io
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from PIL import Image, ImageFilter

from cluster.database import connect
from cluster.objects import ObjectStore
from cluster.settings import Settings
from data.imaging.preprocess import PixelConfig, decode
from data.sandbox.decoder import Decoder
from data.synthetic.generator import SyntheticConfig, draw, subjects
from data.taxonomy import taxonomy
from serve.access.auth import KeyRing
from serve.access.rate_limit import Rate, RateConfig
from serve.api.app import build_app
from serve.api.body_limit import MAX_FILE_BYTES
from serve.classifier.answer import Classified
from serve.dependencies.postgres import PostgresConnection
from serve.front_door.attempts import InfrastructureError, ModelError
from serve.front_door.explanation_service import ExplanationService
from serve.front_door.heatmap_service import WAITING, heatmap_key
from serve.front_door.prediction_service import PredictionConfig, PredictionService
from serve.front_door.serving_snapshot import ServingSnapshot
from serve.ledger.writer import Records, RecordsConfig
from serve.routing.routes import Routes, Target, add, set_weights
from tests.cards import card
from tests.planted import plant

PATIENT_S = 20.0
"""For a statement on a busy machine: what happens to a slow one is in test_front_door_away.py."""
T = TypeVar("T")
KEYS = {"client": "c" * 40, "other": "o" * 40, "physician": "p" * 40, "operator": "q" * 40}
CARD = card()


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
    gaze: Callable[[np.ndarray], np.ndarray | None] = lambda pixels_HW: (pixels_HW / 255).astype(np.float32)
    looked: list[tuple[str, int]] = field(default_factory=list)

    async def classify(self, target: Target, pixels_HW: np.ndarray, judged: bool) -> Classified:
        self.seen.append((target.version, pixels_HW.shape))
        return Classified(probabilities_C=self.canary() if target.role == "canary" else self.champion())

    def away(self, target: Target, since_s: float) -> str | None:
        return None

    async def explain(self, target: Target, finding: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        raise InfrastructureError("away")
        yield {}

    async def heat(self, target: Target, pixels_HW: np.ndarray, label: int) -> np.ndarray | None:
        self.looked.append((target.version, label))
        return self.gaze(pixels_HW)


@dataclass
class Door:
    """The app under test, with helpers that speak HTTP to it."""

    settings: Settings
    models: LocalModels
    decoder: Decoder
    canary_weight: float = 0.0
    rates: RateConfig | None = None

    def routes(self) -> list[Any]:
        """Of the app, whether its document has them or not."""
        return asyncio.run(self._with(lambda app, api: _itself(app.routes), self.settings.database_url))

    def at_once(self, *requests: dict[str, Any]) -> list[httpx.Response]:
        async def send(_: FastAPI, api: httpx.AsyncClient) -> list[httpx.Response]:
            return list(await asyncio.gather(*(api.request(**one) for one in requests)))

        return asyncio.run(self._with(send, self.settings.database_url))

    def requests(self, *requests: dict[str, Any], database_url: str | None = None) -> list[httpx.Response]:
        async def send(_: FastAPI, api: httpx.AsyncClient) -> list[httpx.Response]:
            return [await api.request(**one) for one in requests]

        return asyncio.run(self._with(send, database_url or self.settings.database_url))

    async def _with(self, use: Callable[[FastAPI, httpx.AsyncClient], Awaitable[T]], url: str) -> T:
        store = ObjectStore(self.settings)
        records = Records(url, store, None, RecordsConfig(deadline_s=PATIENT_S))
        service = PredictionService(
            models=self.models,
            decoder=self.decoder,
            store=store,
            records=records,
            encryption_key=b"e" * 32,
            pseudonym_key=b"p" * 32,
            config=PredictionConfig(classify_deadline_s=1.0),
        )
        canary = self.canary_weight
        routes = Routes(
            model="xray-vit", targets=(Target(version="1", role="champion", bundle_key="bundles/1"),)
        )
        if canary:
            routes = set_weights(add(routes, "2", "bundles/2"), {"2": canary})
        service.snapshot = ServingSnapshot(routes={"xray-vit": routes}, cards={"1": CARD, "2": CARD})
        keys = KeyRing(PostgresConnection(url, records.database, deadline_s=PATIENT_S))
        app = build_app(service, ExplanationService(service), keys, rates=self.rates, settings=self.settings)
        async with app.router.lifespan_context(app):
            transport = httpx.ASGITransport(app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://door", timeout=30) as api:
                return await use(app, api)


async def _itself(value: T) -> T:
    return value


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


def test_requests_of_one_study_stay_with_one_version_and_its_uid_is_kept_nowhere(door: Door) -> None:
    """A DICOM file brings its StudyInstanceUID; an image that is none may be sent with it as `study_key`."""
    file = plant(3)
    uid = file.needles["study uid"].decode()
    door.canary_weight = 0.5
    sent = [post(file.dicom), post(file.dicom), post(png(), study_key=uid), post(png())]
    answers = door.requests(*sent)
    assert [one.status_code for one in answers] == [201] * 4
    with connect(door.settings.database_url) as connection:
        rows = [
            connection.execute("SELECT * FROM predictions WHERE id = %s", (one.json()["id"],)).fetchone()
            for one in answers
        ]
    assert [row["assignment"]["key"] for row in rows if row] == ["study", "study", "study", "request"]
    assert len({row["assignment"]["study"] for row in rows[:3] if row}) == 1
    assert len({row["assignment"]["version"] for row in rows[:3] if row}) == 1
    assert uid not in str(rows)


def test_an_answer_about_a_blurred_image_is_abstained_from_for_its_quality(door: Door) -> None:
    config = SyntheticConfig(seed=3, images=10)
    subject = next(iter(subjects(config)))
    drawn, _, _ = draw(config, subject, 1, np.random.default_rng(subject.seed))
    film = Image.fromarray(decode(drawn).shown_HW)
    sharp = io.BytesIO()
    film.save(sharp, "PNG")
    blurred = io.BytesIO()
    film.filter(ImageFilter.GaussianBlur(0.03 * min(film.size))).save(blurred, "PNG")
    sound, doubtful = (one.json() for one in door.requests(post(sharp.getvalue()), post(blurred.getvalue())))
    assert (sound["abstained_reason"], sound["quality"]["concerns"]) == (None, [])
    assert (doubtful["abstained"], doubtful["abstained_reason"]) == (True, "quality")
    assert doubtful["quality"]["concerns"] == ["blurred"]


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


def test_a_physicians_look_is_audited_before_it_is_granted_and_a_clients_own_is_not(door: Door) -> None:
    (answer,) = door.requests(post(png()))
    url = answer.json()["links"]["self"]
    door.requests(get(url), get(url, "other"), get(url, "physician"), get(f"{url}/heatmap", "physician"))
    with connect(door.settings.database_url) as connection:
        rows = connection.execute(
            "SELECT actor, action, detail FROM audit WHERE subject = %s ORDER BY id",
            [f"prediction/{answer.json()['id']}"],
        ).fetchall()
    assert [(one["action"], one["detail"]["what"]) for one in rows] == [
        ("read", "answer"),
        ("read", "heatmap"),
    ]
    assert len({one["actor"] for one in rows}) == 1


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


def test_a_heatmap_is_as_large_as_the_shown_image_made_once_and_read_by_everyone_later(door: Door) -> None:
    (answer,) = door.requests(post(png(100)))
    url = answer.json()["links"]["heatmap"]
    first, again, doctor = door.requests(get(url), get(url), get(url, "physician"))
    assert first.headers["content-type"] == "image/png"
    assert first.headers["x-model-version"] == "1"
    assert Image.open(io.BytesIO(first.content)).size == (100, 100)
    assert first.content == again.content == doctor.content
    assert door.models.looked == [("1", taxonomy().names.index("bacterial_pneumonia"))]
    door.models.gaze = broken_gaze
    (kept,) = door.requests(get(url))
    assert kept.content == first.content


def broken_gaze(_: np.ndarray) -> np.ndarray:
    raise ModelError("no gradient")


def away_gaze(_: np.ndarray) -> np.ndarray:
    raise InfrastructureError("gone")


@pytest.mark.parametrize(
    ("gaze", "status", "reason"), [(broken_gaze, 409, "no_heatmap"), (away_gaze, 503, None)]
)
def test_a_version_that_gives_no_heat_is_a_clear_refusal(
    door: Door, gaze: Callable[[np.ndarray], np.ndarray], status: int, reason: str | None
) -> None:
    (answer,) = door.requests(post(png()))
    door.models.gaze = gaze
    (refusal,) = door.requests(get(answer.json()["links"]["heatmap"]))
    assert refusal.status_code == status
    assert refusal.json().get("reason") == reason
    assert ("retry-after" in refusal.headers) == (status == 503)


def test_a_version_that_is_no_longer_live_is_not_stood_in_for_by_another(door: Door) -> None:
    door.canary_weight = 0.999
    door.models.canary = lambda: np.eye(10)[3]
    (answer,) = door.requests(post(png()))
    assert answer.headers["x-model-version"] == "2"
    door.canary_weight = 0.0
    (refusal,) = door.requests(get(answer.json()["links"]["heatmap"]))
    assert refusal.status_code == 409
    assert refusal.json()["reason"] == "version_not_live"
    assert door.models.looked == []
    door.canary_weight = 0.001
    (back,) = door.requests(get(answer.json()["links"]["heatmap"]))
    assert back.status_code == 200
    assert door.models.looked == [("2", 3)]


def test_a_front_door_that_finds_the_replica_busy_waits_for_what_another_makes(door: Door) -> None:
    (answer,) = door.requests(post(png()))
    store = ObjectStore(door.settings)
    with connect(door.settings.database_url) as connection:
        row = connection.execute(
            "SELECT image_key FROM predictions WHERE id = %s", (answer.json()["id"],)
        ).fetchone()
    assert row is not None

    def busy(_: np.ndarray) -> None:
        store.put("predictions", heatmap_key(row["image_key"]), b"made by another front door")

    door.models.gaze = busy
    (got,) = door.requests(get(answer.json()["links"]["heatmap"]))
    assert got.content == b"made by another front door"


def test_heatmaps_are_asked_for_once_at_a_time_and_a_crowd_is_told_to_come_again(door: Door) -> None:
    answers = door.requests(*(post(png(64 + nth)) for nth in range(WAITING + 2)))
    links = [one.json()["links"]["heatmap"] for one in answers]
    got = door.at_once(*(get(url) for url in [*links, links[0]]))
    assert sorted(one.status_code for one in got) == [200] * (WAITING + 1) + [503] * 2
    assert all(int(one.headers["retry-after"]) > 0 for one in got if one.status_code == 503)
    assert len(door.models.looked) == WAITING


MATRIX = {
    # path, method: what a caller without a key, a client, another client, a physician and an operator get
    ("/v1/predictions", "POST"): (401, 201, 201, 403, 403),
    ("/v1/predictions/{prediction_id}", "GET"): (401, 200, 404, 200, 403),
    ("/v1/predictions/{prediction_id}/explanation", "GET"): (401, 200, 404, 200, 403),
    ("/v1/predictions/{prediction_id}/heatmap", "GET"): (401, 200, 404, 200, 403),
    ("/v1/rollouts", "GET"): (401, 403, 403, 403, 200),
    ("/v1/rollouts", "POST"): (401, 403, 403, 403, 404),
    ("/v1/rollouts/{rollout_id}/{verb}", "POST"): (401, 403, 403, 403, 404),
    ("/v1/traffic", "PUT"): (401, 403, 403, 403, 409),
    ("/v1/faults", "PUT"): (401, 403, 403, 403, 404),
    ("/v1/faults", "DELETE"): (401, 403, 403, 403, 200),
    ("/healthz", "GET"): (200,) * 5,
    ("/healthz", "HEAD"): (200,) * 5,
    ("/readyz", "GET"): (200,) * 5,
    ("/readyz", "HEAD"): (200,) * 5,
    ("/openapi.json", "GET"): (200,) * 5,
    ("/openapi.json", "HEAD"): (200,) * 5,
    ("/docs", "GET"): (200,) * 5,
    ("/docs", "HEAD"): (200,) * 5,
    ("/docs/oauth2-redirect", "GET"): (200,) * 5,
    ("/docs/oauth2-redirect", "HEAD"): (200,) * 5,
    ("/redoc", "GET"): (200,) * 5,
    ("/redoc", "HEAD"): (200,) * 5,
}
BODIES: dict[str, dict[str, Any]] = {
    "/v1/rollouts": {"model": "xray-vit", "version": "4711"},
    "/v1/traffic": {"model": "xray-llm", "weights": {"1": 1.0}},
    "/v1/faults": {"model": "xray-vit", "version": "4711", "error_rate": 0.5},
}
CALLERS = (None, "client", "other", "physician", "operator")


def test_every_route_has_a_row_and_answers_each_role_as_its_row_says(door: Door) -> None:
    assert {(route.path, method) for route in door.routes() for method in route.methods} == set(MATRIX)
    (answer,) = door.requests(post(png()))
    for (path, method), expected in MATRIX.items():
        url = path.format(prediction_id=answer.json()["id"], rollout_id=4711, verb="pause")
        body = {"json": BODIES[path]} if path in BODIES and method in ("POST", "PUT") else {}
        calls = [
            post(png(), who)
            if (path, method) == ("/v1/predictions", "POST")
            else get(url, who) | {"method": method} | body
            for who in CALLERS
        ]
        got = tuple(one.status_code for one in door.requests(*calls))
        assert got == expected, (method, path)


@pytest.mark.parametrize(
    ("method", "url", "body"),
    [
        (
            "POST",
            "/v1/rollouts",
            b'{"model": "xray-vit", "version": "1", "steps": [{"share": 0, "minutes": 1e999}]}',
        ),
        ("POST", "/v1/rollouts", b'{"model": "xray-vit", "version": "1\\u0000"}'),
        ("PUT", "/v1/faults", b'{"model": "xray-vit", "version": "1\\u0000"}'),
        ("PUT", "/v1/traffic", b'{"model": "xray-vit", "weights": {"1\\u0000": 1}}'),
    ],
)
def test_what_the_database_could_not_hold_is_refused_before_it(
    door: Door, method: str, url: str, body: bytes
) -> None:
    request = get(url, "operator")
    headers = {**request["headers"], "Content-Type": "application/json"}
    (answer,) = door.requests(request | {"method": method, "content": body, "headers": headers})
    assert answer.status_code in (400, 422), answer.text


@pytest.mark.parametrize(
    ("method", "url"),
    [
        ("POST", "/v1/rollouts"),
        ("POST", "/v1/rollouts/x/pause"),
        ("PUT", "/v1/traffic"),
        ("PUT", "/v1/faults"),
    ],
)
def test_who_calls_is_asked_before_a_body_is_checked_and_a_large_one_is_not_read(
    door: Door, method: str, url: str
) -> None:
    wrong = {"method": method, "content": b'{"steps": [{}]}'}
    large = {"method": method, "content": b"[" + b"0," * 40_000 + b"0]"}
    kind = {"Content-Type": "application/json"}

    def call(what: dict[str, Any], who: str | None) -> dict[str, Any]:
        request = get(url, who)
        return request | what | {"headers": {**request.get("headers", {}), **kind}}

    calls = [call(wrong, None), call(wrong, "client"), call(wrong, "operator"), call(large, None)]
    takes_a_body = not url.endswith("pause")
    assert [one.status_code for one in door.requests(*calls)] == [401, 403, 400, 413 if takes_a_body else 401]


def test_errors_name_our_fields_and_no_callers(door: Door) -> None:
    request = get("/v1/rollouts", "operator") | {"method": "POST"}
    many = {"model": "xray-vit", "version": "1", "steps": [0.1] * 51}
    strange, leading, too_many, header = door.requests(
        request | {"json": {"model": "xray-vit", "version": "1", "Jane Doe": 1}},
        request | {"json": {"model": "xray-vit", "version": "01"}},
        request | {"json": many},
        post(png(), "operator")
        | {"headers": {**post(png(), "operator")["headers"], "X-Raydiology-Version": "Jane"}},
    )
    assert [one.status_code for one in (strange, leading, too_many, header)] == [400] * 4
    assert strange.json()["detail"] == "the request is malformed at body, a field that there is not"
    assert not any("Jane" in one.text for one in (strange, header))


def test_a_key_that_asks_too_often_is_told_when_to_come_again_before_its_body_is_read(door: Door) -> None:
    door.rates = RateConfig(client=Rate(per_s=0.01, burst=2))
    unread = post(b"x" * (MAX_FILE_BYTES + 2**20))
    first, second, third, doctor = door.requests(
        get("/v1/predictions/none"), unread, unread, get("/v1/predictions/none", "physician")
    )
    assert [first.status_code, second.status_code, doctor.status_code] == [404, 413, 404]
    assert third.status_code == 429
    assert 1 <= int(third.headers["retry-after"]) <= 100
    assert third.headers["content-type"] == "application/problem+json"


def test_a_field_that_there_is_not_is_refused_and_not_repeated(door: Door) -> None:
    (answer,) = door.requests(post(png(), pateint_key="Jane Doe"))
    assert answer.status_code == 400
    assert "patient_key" in answer.json()["detail"]
    assert "pateint" not in answer.text
    assert "Jane" not in answer.text
    assert not door.models.seen
