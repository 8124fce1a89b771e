"""The prediction service: what happens between an authenticated upload and its answer.

Decodes the upload, assigns a version by the sticky key, has it answer (`serve.front_door.attempts`), stores image
and record, answers; then shows the image to versions that are only compared (`serve.front_door.mirror`). Knows
neither Ray nor HTTP.
"""

import asyncio
import base64
import json
import logging
import time
import uuid
from dataclasses import dataclass
from typing import Any

from cluster.objects import ObjectStore
from cluster.releases.registry import LLM, VIT
from cluster.secrets import keyed_hash, seal
from data.imaging.preprocess import BadImageError, Decoded, PixelConfig, UnknownTypeError
from data.sandbox.decoder import Decoder, SandboxError
from serve.access.auth import Caller
from serve.explanation.explanation import disclaimer
from serve.front_door.attempts import Attempt, Attempts, Models, NobodyAnsweredError
from serve.front_door.mirror import Mirror, Shown
from serve.front_door.prediction import Prediction, build_prediction, replay, uuid8
from serve.front_door.prepared_image import decode_and_scale
from serve.front_door.serving_snapshot import ServingSnapshot
from serve.front_door.upload import Upload
from serve.ledger.image_writer import Images
from serve.ledger.rows import Failure, Record
from serve.ledger.writer import Records
from serve.problems import Problem, unavailable
from serve.routing.routes import Routes, RoutingError, Target, assign, mirrors
from serve.routing.sticky_key import sticky

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PredictionConfig:
    classify_deadline_s: float = 5.0
    """Time for all attempts of one request at the models."""
    model: str = VIT
    explainer: str = LLM


@dataclass(kw_only=True, slots=True)
class Assignment:
    """The version that one request is assigned to, and by what."""

    snapshot: ServingSnapshot
    routes: Routes
    target: Target
    patient_pseudonym: str | None
    row: dict[str, Any]
    """As the ledger stores it, see `serve.ledger.rows.Failure`."""


class PredictionService:
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
        config: PredictionConfig,
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
        """Return the current snapshot, and the classifier's routes on it.

        Raises:
            Problem: 503 if no version is deployed.
        """
        if self.snapshot is None or self.config.model not in self.snapshot.routes:
            raise unavailable("the classifier", retry_after_s=5)
        return self.snapshot, self.snapshot.routes[self.config.model]

    def prediction_id(self, caller: Caller, idempotency_key: str | None) -> uuid.UUID:
        """Return a fresh id, or the one that this client's Idempotency-Key always gets, on any replica."""
        if idempotency_key is None:
            return uuid.uuid4()
        digest = keyed_hash(self._pseudonym_key, "idempotency", caller.key_id, idempotency_key)
        return uuid8(bytes.fromhex(digest)[:16])

    async def predict(
        self,
        upload: Upload,
        caller: Caller,
        *,
        request_id: str,
        idempotency_key: str | None,
        version: str | None = None,
    ) -> Prediction:
        """Classify one upload and store it; returns the body of the 201.

        Args:
            version: the version that has to answer, whatever the weights; chosen by an operator, and left out of all
                statistics.
        Raises:
            Problem: 400 for a version that is not live; 409, 415, 422 for what the caller sent; 503 when a
                dependency does not answer.
        """
        prediction_id = self.prediction_id(caller, idempotency_key)
        body_sha256 = upload.sha256(version)
        if idempotency_key is not None:
            row = await self.records.find_earlier(prediction_id)
            if row is not None:
                return replay(row, body_sha256)
        decoded = await self._decode(upload)
        assignment = self._assign(upload, decoded, caller, prediction_id, version)
        image_key = _image_key(prediction_id, body_sha256)
        image = asyncio.create_task(self.images.keep(image_key, decoded.shown_HW))
        try:
            served, attempts = await self.attempts.ask_with_fallback(
                assignment.snapshot, assignment.routes, assignment.target, decoded
            )
        except NobodyAnsweredError as error:
            image.cancel()
            await self._keep_failure(error, assignment, decoded, caller, request_id)
            raise
        except BaseException:
            image.cancel()
            raise
        body = self._body(prediction_id, assignment, decoded, served, attempts[-1])
        record = Record(
            id=prediction_id,
            client_key_id=caller.key_id,
            request_id=request_id,
            body_sha256=body_sha256,
            patient_pseudonym=assignment.patient_pseudonym,
            assignment=assignment.row,
            attempts=[attempt.as_row() for attempt in attempts],
            model=assignment.routes.model,
            served_version=served.version,
            answer=body,
            image_key=image_key,
            metadata=self._metadata(upload, prediction_id),
        )
        result = await self.records.keep(record, await image)
        if result.earlier is not None:  # another replica has answered the same Idempotency-Key meanwhile
            return replay(result.earlier, body_sha256)
        self._mirror(assignment, decoded, served, attempts[-1], request_id)
        return {**body, "stored": result.stored}

    def _assign(
        self,
        upload: Upload,
        decoded: Decoded,
        caller: Caller,
        prediction_id: uuid.UUID,
        version: str | None,
    ) -> Assignment:
        """Choose the version that is to answer: the operator's, else the one that the sticky key draws.

        Raises:
            Problem: 400 if the operator's version is not live; 503 if no version is deployed.
        """
        snapshot, routes = self.live()
        key = sticky(
            patient_key=upload.patient_key,
            study_key=upload.study_key,
            study_sha256=decoded.study_sha256,
            request=prediction_id,
            client=caller.key_id,
            secret=self._pseudonym_key,
        )
        target = assign(routes, key.key) if version is None else _live_target(routes, version)
        row = {
            **({"key": "operator"} if version else key.as_assignment()),
            "version": target.version,
            "arm": target.role,
            "weights": routes.weights,
            "revision": routes.revision,
        }
        return Assignment(
            snapshot=snapshot, routes=routes, target=target, patient_pseudonym=key.patient, row=row
        )

    async def _keep_failure(
        self,
        error: NobodyAnsweredError,
        assignment: Assignment,
        decoded: Decoded,
        caller: Caller,
        request_id: str,
    ) -> None:
        """Store the attempts of a request that no version answered."""
        # Mirrored all the same: else a mirrored version would seem to fail more often than the champion.
        self._mirror(assignment, decoded, assignment.routes.champion, error.attempts[-1], request_id)
        failure = Failure(
            id=uuid.uuid4(),
            client_key_id=caller.key_id,
            request_id=request_id,
            patient_pseudonym=assignment.patient_pseudonym,
            assignment=assignment.row,
            attempts=[attempt.as_row() for attempt in error.attempts],
            model=assignment.routes.model,
        )
        await self.records.keep_failure(failure)

    def _body(
        self,
        prediction_id: uuid.UUID,
        assignment: Assignment,
        decoded: Decoded,
        served: Target,
        attempt: Attempt,
    ) -> Prediction:
        assert attempt.answer is not None
        return build_prediction(
            prediction_id,
            attempt.answer,
            decoded,
            model=assignment.routes.model,
            served=served,
            assigned=assignment.target,
            disclaimer=disclaimer(synthetic=assignment.snapshot.cards[served.version].synthetic),
        )

    def _mirror(
        self, assignment: Assignment, decoded: Decoded, served: Target, attempt: Attempt, request_id: str
    ) -> None:
        """Show the image to the versions that mirror the one that answered; returns at once."""
        shown = Shown(
            model=assignment.routes.model,
            patient_pseudonym=assignment.patient_pseudonym,
            assignment=assignment.row,
            served=attempt,
        )
        targets = mirrors(assignment.routes, served.version, request_id)
        self.mirror.show(assignment.snapshot, targets, decoded, shown)

    async def _decode(self, upload: Upload) -> Decoded:
        """Decode the untrusted file in a child process, and scale it for the champion.

        Raises:
            Problem: 415, 422 for the file; 503 without a process to decode with.
        """
        if not upload.blob:
            raise Problem(422, "the file is empty", reason="empty")
        try:
            return await asyncio.to_thread(
                decode_and_scale, self.decoder, upload.blob, upload.view, self._champion_pixels()
            )
        except UnknownTypeError as error:
            raise Problem(415, "this is no image that we read: send a PNG, JPEG or DICOM file") from error
        except BadImageError as error:
            raise Problem(422, str(error), reason=error.reason) from error
        except SandboxError as error:
            logger.exception("no process to decode with")
            raise unavailable("the decoder") from error

    def _champion_pixels(self) -> PixelConfig | None:
        live = self.snapshot.routes.get(self.config.model) if self.snapshot is not None else None
        card = self.snapshot.cards.get(live.champion.version) if self.snapshot is not None and live else None
        return card.pixels if card is not None else None

    def _metadata(self, upload: Upload, prediction_id: uuid.UUID) -> dict[str, Any]:
        metadata: dict[str, Any] = {"sex": upload.sex, "age": upload.age, "view": upload.view}
        if upload.metadata is not None:
            sealed = seal(
                json.dumps(upload.metadata).encode(), self._encryption_key, context=prediction_id.bytes
            )
            metadata["sealed"] = base64.b64encode(sealed).decode()
        return metadata


def _image_key(prediction_id: uuid.UUID, body_sha256: str) -> str:
    # The body's hash too: two requests that race under one Idempotency-Key must not overwrite each other's image.
    return f"{time.strftime('%Y/%m/%d', time.gmtime())}/{prediction_id}-{body_sha256[:16]}.png"


def _live_target(routes: Routes, version: str) -> Target:
    try:
        return routes.target(version)
    except RoutingError as error:
        raise Problem(400, str(error)) from error
