"""The front desk: what happens between an authenticated upload and its answer.

Decode, choose the version by the sticky key, classify, fall back to the champion when that version fails,
read the probabilities, keep image and record, answer. Plain code: models are reached through the `Models`
seam, which `serve.deployments` fills with Ray Serve handles and tests with a model in this process.
"""

import asyncio
import base64
import hashlib
import json
import logging
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from psycopg.rows import DictRow

from cluster.objects import ObjectStore, ObjectStoreError
from cluster.secrets import keyed_hash, seal
from data.preprocess import BadImageError, Decoded, UnknownTypeError, encode_png, scale
from data.sandbox import Decoder, SandboxError
from serve.answer import InvalidOutputError, answer
from serve.auth import Caller
from serve.card import Card
from serve.explanation import disclaimer
from serve.problems import Problem, unavailable
from serve.records import Record, Records
from serve.routing import Routes, Target, assign
from serve.upload import Upload

logger = logging.getLogger(__name__)

Outcome = Literal["ok", "model_error", "invalid_output", "deadline", "infrastructure"]


class ModelError(RuntimeError):
    """The model raised on this input."""


class InfrastructureError(RuntimeError):
    """No replica could be reached, or it died under the request."""


class Models(Protocol):
    """How the desk reaches the models."""

    async def classify(self, target: Target, pixels_HW: np.ndarray) -> np.ndarray:
        """Calibrated probabilities of one image, float64 (classes,).

        Raises:
            ModelError, InfrastructureError: told apart, because guardrails count them apart.
        """
        ...

    def explain(self, target: Target, finding: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """Events of one explanation, see `serve.explainer`."""
        ...

    async def heat(self, target: Target, pixels_HW: np.ndarray, label: int) -> np.ndarray | None:
        """Where a version looked, see `serve.heatmap`; None while it is busy with another image.

        Raises:
            ModelError, InfrastructureError: as `classify`.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class DeskConfig:
    classify_deadline_s: float = 5.0
    """Time for all attempts of one request at the models."""
    model: str = "xray-vit"
    explainer: str = "xray-llm"


@dataclass(frozen=True, kw_only=True)
class Board:
    """What is live: routes of each model, and the card of each version of the classifier."""

    routes: dict[str, Routes]
    cards: dict[str, Card]
    """By version of the classifier."""


class Desk:
    """Answers predictions; one per front-door replica."""

    def __init__(
        self,
        *,
        models: Models,
        decoder: Decoder,
        store: ObjectStore,
        records: Records,
        encryption_key: bytes,
        pseudonym_key: bytes,
        config: DeskConfig,
    ) -> None:
        self.models = models
        self.decoder = decoder
        self.store = store
        self.records = records
        self.config = config
        self.board: Board | None = None
        self._encryption_key = encryption_key
        self._pseudonym_key = pseudonym_key

    def classifier_routes(self) -> tuple[Routes, dict[str, Card]]:
        if self.board is None or self.config.model not in self.board.routes:
            raise unavailable("the classifier", retry_after_s=5)
        return self.board.routes[self.config.model], self.board.cards

    def prediction_id(self, caller: Caller, idempotency_key: str | None) -> uuid.UUID:
        """A fresh id, or the one that this client's Idempotency-Key always gets, on any replica."""
        if idempotency_key is None:
            return uuid.uuid4()
        digest = keyed_hash(self._pseudonym_key, "idempotency", caller.key_id, idempotency_key)
        return _uuid8(bytes.fromhex(digest)[:16])

    async def predict(
        self, upload: Upload, caller: Caller, *, request_id: str, idempotency_key: str | None
    ) -> dict[str, Any]:
        """Classify one upload and keep it; returns the body of the 201.

        Raises:
            Problem: 409, 415, 422 for what the caller sent; 503 when a dependency does not answer.
        """
        prediction_id = self.prediction_id(caller, idempotency_key)
        body_sha256 = _body_sha256(upload)
        if idempotency_key is not None:
            row = await self.records.get(prediction_id)
            if row is not None:
                return _same_request(row, body_sha256)
        decoded = await self._decode(upload)
        routes, cards = self.classifier_routes()
        pseudonym = (
            keyed_hash(self._pseudonym_key, "patient_key", caller.key_id, upload.patient_key)
            if upload.patient_key
            else None
        )
        assigned = assign(routes, pseudonym or str(prediction_id))
        image_key = f"{time.strftime('%Y/%m/%d', time.gmtime())}/{prediction_id}.png"
        image = asyncio.create_task(self._keep_image(image_key, decoded))
        try:
            served, probabilities_C, attempts = await self._classify(assigned, routes, cards, decoded)
        except BaseException:
            image.cancel()
            raise
        await image
        told = answer(probabilities_C, cards[served.version])
        body: dict[str, Any] = {
            "id": str(prediction_id),
            "label": told.label,
            "probabilities": told.probabilities,
            "confidence": told.confidence,
            "abstained": told.abstained,
            "prediction_set": told.prediction_set,
            "triage": told.triage,
            "model": {"name": routes.model, "version": served.version},
            "arm": "canary" if served.role == "canary" else "champion",
            "served_by": f"{routes.model}-v{served.version}",
            "stored": "yes",
            "quality": {"kind": decoded.kind, "width": decoded.width, "height": decoded.height},
            "links": {
                "self": f"/v1/predictions/{prediction_id}",
                "explanation": f"/v1/predictions/{prediction_id}/explanation",
                "heatmap": f"/v1/predictions/{prediction_id}/heatmap",
            },
            "disclaimer": disclaimer(synthetic=cards[served.version].synthetic),
        }
        if served.version != assigned.version:
            body["fallback_from"] = assigned.version
        stored = await self.records.add(
            Record(
                id=prediction_id,
                client_key_id=caller.key_id,
                request_id=request_id,
                body_sha256=body_sha256,
                patient_pseudonym=pseudonym,
                assignment={
                    "key": "patient" if pseudonym else "request",
                    "version": assigned.version,
                    "arm": assigned.role,
                    "weights": {one.version: one.weight for one in routes.targets},
                },
                attempts=attempts,
                model=routes.model,
                served_version=served.version,
                answer=body,
                image_key=image_key,
                metadata=self._metadata(upload, prediction_id),
            )
        )
        if not stored:  # the same Idempotency-Key was answered elsewhere meanwhile
            row = await self.records.get(prediction_id)
            assert row is not None
            return _same_request(row, body_sha256)
        return body

    async def _decode(self, upload: Upload) -> Decoded:
        """Open the file in a child process; it is the caller's own bytes until then."""
        if not upload.blob:
            raise Problem(422, "the file is empty", reason="empty")
        try:
            return await asyncio.to_thread(self.decoder.decode, upload.blob, view=upload.view)
        except UnknownTypeError as error:
            raise Problem(415, "this is no image that we read: send a PNG, JPEG or DICOM file") from error
        except BadImageError as error:
            raise Problem(422, str(error), reason=error.reason) from error
        except SandboxError as error:
            logger.exception("no process to decode with")
            raise unavailable("the decoder") from error

    async def _classify(
        self, assigned: Target, routes: Routes, cards: dict[str, Card], decoded: Decoded
    ) -> tuple[Target, np.ndarray, list[dict[str, Any]]]:
        """Try the assigned version, then the champion, within one deadline."""
        candidates = (
            [assigned] if assigned.version == routes.champion.version else [assigned, routes.champion]
        )
        attempts: list[dict[str, Any]] = []
        ends_at = time.monotonic() + self.config.classify_deadline_s
        for nth, target in enumerate(candidates):
            left_s = ends_at - time.monotonic()
            share_s = left_s / (len(candidates) - nth)
            started_at = time.monotonic()
            outcome: Outcome = "ok"
            probabilities_C = np.empty(0)
            card = cards[target.version]
            try:
                pixels_HW = await asyncio.to_thread(scale, decoded.shown_HW, card.pixels)
                probabilities_C = await asyncio.wait_for(self.models.classify(target, pixels_HW), share_s)
                answer(probabilities_C, card)
            except TimeoutError:
                outcome = "deadline"
            except InvalidOutputError:
                outcome = "invalid_output"
            except ModelError:
                outcome = "model_error"
                logger.exception("version %s raised", target.version)
            except InfrastructureError:
                outcome = "infrastructure"
                logger.exception("no replica of version %s answered", target.version)
            elapsed_ms = (time.monotonic() - started_at) * 1000
            attempts.append(
                {"version": target.version, "outcome": outcome, "latency_ms": round(elapsed_ms, 2)}
            )
            if outcome == "ok":
                return target, probabilities_C, attempts
        raise unavailable("the classifier")

    async def _keep_image(self, key: str, decoded: Decoded) -> None:
        """Store what was shown: pixels only, so the file's own headers never leave this process."""

        def put() -> None:
            self.store.put("predictions", key, encode_png(decoded.shown_HW))

        try:
            await asyncio.to_thread(put)
        except ObjectStoreError as error:
            logger.exception("cannot keep an image")
            raise unavailable("the object store") from error

    def _metadata(self, upload: Upload, prediction_id: uuid.UUID) -> dict[str, Any]:
        kept: dict[str, Any] = {"sex": upload.sex, "age": upload.age, "view": upload.view}
        if upload.metadata is not None:
            sealed = seal(
                json.dumps(upload.metadata).encode(), self._encryption_key, context=prediction_id.bytes
            )
            kept["sealed"] = base64.b64encode(sealed).decode()
        return kept


def _uuid8(data: bytes) -> uuid.UUID:
    """16 bytes as a UUID of version 8, the one for vendors' own data (RFC 9562, 5.8); Python 3.14 has it built in."""
    value = int.from_bytes(data, "big")
    value = value & ~(0xF << 76) | 8 << 76
    return uuid.UUID(int=value & ~(0b11 << 62) | 0b10 << 62)


def _body_sha256(upload: Upload) -> str:
    fields = json.dumps(
        [upload.patient_key, upload.sex, upload.age, upload.view, upload.metadata], sort_keys=True
    )
    return hashlib.sha256(hashlib.sha256(upload.blob).digest() + fields.encode()).hexdigest()


def _same_request(row: DictRow, body_sha256: str) -> dict[str, Any]:
    if row["body_sha256"] != body_sha256:
        raise Problem(409, "this Idempotency-Key was used for another request; send a new one")
    body: dict[str, Any] = row["answer"]
    return body
