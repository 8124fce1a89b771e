"""The front desk: what happens between an authenticated upload and its answer.

Decode, choose the version by the sticky key, have it answer (`serve.attempts`), keep image and record, answer; then
show the image to versions that are only to be compared (`serve.mirror`). Plain code, which knows neither Ray nor HTTP.
"""

import asyncio
import base64
import hashlib
import json
import logging
import time
import uuid
from dataclasses import dataclass
from typing import Any

from psycopg.rows import DictRow

from cluster.objects import ObjectStore
from cluster.registry import LLM, VIT
from cluster.secrets import keyed_hash, seal
from data.preprocess import BadImageError, Decoded, PixelConfig, UnknownTypeError
from data.sandbox import Decoder, SandboxError
from serve.attempts import Attempt, Attempts, Models, NobodyAnsweredError
from serve.auth import Caller
from serve.board import ServingSnapshot
from serve.explanation import disclaimer
from serve.film import opened
from serve.images import Images
from serve.mirror import Mirror, Shown
from serve.problems import Problem, unavailable
from serve.record_rows import Failure, Record
from serve.records import Records
from serve.routing import Routes, RoutingError, Target, assign, mirrors
from serve.sticky import sticky
from serve.upload import Upload

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class DeskConfig:
    classify_deadline_s: float = 5.0
    """Time for all attempts of one request at the models."""
    model: str = VIT
    explainer: str = LLM


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
        self.attempts = Attempts(models, deadline_s=config.classify_deadline_s)
        self.mirror = Mirror(self.attempts, records)
        self.decoder = decoder
        self.store = store
        self.records = records
        self.config = config
        self.snapshot: ServingSnapshot | None = None
        self.images = Images(store, records)
        self._encryption_key = encryption_key
        self._pseudonym_key = pseudonym_key

    def live(self) -> tuple[ServingSnapshot, Routes]:
        """The snapshot as it is now, and the classifier's routes on it.

        Raises:
            Problem: 503, no version is deployed.
        """
        if self.snapshot is None or self.config.model not in self.snapshot.routes:
            raise unavailable("the classifier", retry_after_s=5)
        return self.snapshot, self.snapshot.routes[self.config.model]

    def prediction_id(self, caller: Caller, idempotency_key: str | None) -> uuid.UUID:
        """A fresh id, or the one that this client's Idempotency-Key always gets, on any replica."""
        if idempotency_key is None:
            return uuid.uuid4()
        digest = keyed_hash(self._pseudonym_key, "idempotency", caller.key_id, idempotency_key)
        return _uuid8(bytes.fromhex(digest)[:16])

    async def predict(
        self,
        upload: Upload,
        caller: Caller,
        *,
        request_id: str,
        idempotency_key: str | None,
        version: str | None = None,
    ) -> dict[str, Any]:
        """Classify one upload and keep it; returns the body of the 201.

        Args:
            version: which is to answer, whatever the weights; an operator's wish, of which no statistics are made.
        Raises:
            Problem: 400 for a version that is not live; 409, 415, 422 for what the caller sent; 503 when a
                dependency does not answer.
        """
        prediction_id = self.prediction_id(caller, idempotency_key)
        body_sha256 = _body_sha256(upload, version)
        if idempotency_key is not None:
            row = await self.records.find_earlier(prediction_id)
            if row is not None:
                return _same_request(row, body_sha256)
        decoded = await self._decode(upload)
        snapshot, routes = self.live()
        stuck = sticky(
            patient_key=upload.patient_key,
            study_key=upload.study_key,
            study_sha256=decoded.study_sha256,
            request=prediction_id,
            client=caller.key_id,
            secret=self._pseudonym_key,
        )
        pseudonym = stuck.patient
        assigned = _wanted(routes, version) or assign(routes, stuck.key)
        assignment = {
            **({"key": "operator"} if version else stuck.as_assignment()),
            "version": assigned.version,
            "arm": assigned.role,
            "weights": routes.weights,
            "revision": routes.revision,
        }

        def show(answered_by: Target, attempt: Attempt) -> None:
            told = Shown(
                model=routes.model, patient_pseudonym=pseudonym, assignment=assignment, served=attempt
            )
            self.mirror.show(snapshot, mirrors(routes, answered_by.version, request_id), decoded, told)

        # Of the body too: two requests that race under one Idempotency-Key must not change each other's image.
        image_key = f"{time.strftime('%Y/%m/%d', time.gmtime())}/{prediction_id}-{body_sha256[:16]}.png"
        image = asyncio.create_task(self.images.keep(image_key, decoded.shown_HW))
        try:
            served, attempts = await self.attempts.ask_with_fallback(snapshot, routes, assigned, decoded)
        except NobodyAnsweredError as error:
            image.cancel()
            show(
                routes.champion, error.attempts[-1]
            )  # else a mirrored version would be seen to fail more often
            await self.records.keep_failure(
                Failure(
                    id=uuid.uuid4(),
                    client_key_id=caller.key_id,
                    request_id=request_id,
                    patient_pseudonym=pseudonym,
                    assignment=assignment,
                    attempts=[one.as_row() for one in error.attempts],
                    model=routes.model,
                )
            )
            raise
        except BaseException:
            image.cancel()
            raise
        told = attempts[-1].answer
        assert told is not None
        body: dict[str, Any] = {
            "id": str(prediction_id),
            "label": told.label,
            "probabilities": told.probabilities,
            "confidence": told.confidence,
            "abstained": told.abstained,
            "abstained_reason": told.abstained_reason,
            "prediction_set": told.prediction_set,
            "triage": told.triage,
            "model": {"name": routes.model, "version": served.version},
            "arm": "canary" if served.role == "canary" else "champion",
            "served_by": f"{routes.model}-v{served.version}",
            "stored": "yes",
            "quality": {
                "kind": decoded.kind,
                "width": decoded.width,
                "height": decoded.height,
                "concerns": list(told.concerns),
            },
            "links": {
                "self": f"/v1/predictions/{prediction_id}",
                "explanation": f"/v1/predictions/{prediction_id}/explanation",
                "heatmap": f"/v1/predictions/{prediction_id}/heatmap",
            },
            "disclaimer": disclaimer(synthetic=snapshot.cards[served.version].synthetic),
        }
        if served.version != assigned.version:
            body["fallback_from"] = assigned.version
        kept = await self.records.keep(
            Record(
                id=prediction_id,
                client_key_id=caller.key_id,
                request_id=request_id,
                body_sha256=body_sha256,
                patient_pseudonym=pseudonym,
                assignment=assignment,
                attempts=[one.as_row() for one in attempts],
                model=routes.model,
                served_version=served.version,
                answer=body,
                image_key=image_key,
                metadata=self._metadata(upload, prediction_id),
            ),
            await image,
        )
        if kept.earlier is not None:  # the same Idempotency-Key was answered elsewhere meanwhile
            return _same_request(kept.earlier, body_sha256)
        show(served, attempts[-1])
        return {**body, "stored": kept.stored}

    async def _decode(self, upload: Upload) -> Decoded:
        """Open the file in a child process; it is the caller's own bytes until then."""
        if not upload.blob:
            raise Problem(422, "the file is empty", reason="empty")
        try:
            return await asyncio.to_thread(opened, self.decoder, upload.blob, upload.view, self._pixels())
        except UnknownTypeError as error:
            raise Problem(415, "this is no image that we read: send a PNG, JPEG or DICOM file") from error
        except BadImageError as error:
            raise Problem(422, str(error), reason=error.reason) from error
        except SandboxError as error:
            logger.exception("no process to decode with")
            raise unavailable("the decoder") from error

    def _pixels(self) -> PixelConfig | None:
        """As the champion wants them."""
        live = self.snapshot.routes.get(self.config.model) if self.snapshot is not None else None
        card = self.snapshot.cards.get(live.champion.version) if self.snapshot is not None and live else None
        return card.pixels if card is not None else None

    def _metadata(self, upload: Upload, prediction_id: uuid.UUID) -> dict[str, Any]:
        kept: dict[str, Any] = {"sex": upload.sex, "age": upload.age, "view": upload.view}
        if upload.metadata is not None:
            sealed = seal(
                json.dumps(upload.metadata).encode(), self._encryption_key, context=prediction_id.bytes
            )
            kept["sealed"] = base64.b64encode(sealed).decode()
        return kept


def _wanted(routes: Routes, version: str | None) -> Target | None:
    try:
        return None if version is None else routes.target(version)
    except RoutingError as error:
        raise Problem(400, str(error)) from error


def _uuid8(data: bytes) -> uuid.UUID:
    """16 bytes as a UUID of version 8, the one for vendors' own data (RFC 9562, 5.8); Python 3.14 has it built in."""
    value = int.from_bytes(data, "big")
    value = value & ~(0xF << 76) | 8 << 76
    return uuid.UUID(int=value & ~(0b11 << 62) | 0b10 << 62)


def _body_sha256(upload: Upload, version: str | None) -> str:
    given = [upload.patient_key, upload.sex, upload.age, upload.view, upload.metadata]
    given += [] if upload.study_key is None else [upload.study_key]
    fields = json.dumps(given + ([] if version is None else [{"version": version}]), sort_keys=True)
    return hashlib.sha256(hashlib.sha256(upload.blob).digest() + fields.encode()).hexdigest()


def _same_request(row: DictRow, body_sha256: str) -> dict[str, Any]:
    if row["body_sha256"] != body_sha256:
        raise Problem(409, "this Idempotency-Key was used for another request; send a new one")
    body: dict[str, Any] = row["answer"]
    return body
