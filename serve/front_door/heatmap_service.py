"""HeatmapService over HTTP: record → heat of the version that answered → overlay, stored beside the image.

The first caller computes it, later ones read the stored one, which never changes. Callers of one front door share a
computation; a front door whose replica is busy checks whether another one has stored the result, and two that compute
it anyway store the same bytes. Another version never stands in for one that is no longer live.
"""

import asyncio
import io
import logging

import numpy as np
from PIL import Image
from psycopg.rows import DictRow

from cluster.objects import ObjectStoreError
from data.imaging.preprocess import scale
from serve.front_door.attempts import InfrastructureError, ModelError
from serve.front_door.heatmap_overlay import overlay
from serve.front_door.prediction_service import PredictionService
from serve.problems import Problem, unavailable
from serve.routing.routes import Target

logger = logging.getLogger(__name__)

DEADLINE_S = 30.0
"""Seconds for one heatmap, waiting at this front door and at the model included."""
WAITING = 4
"""HeatmapService that one front door has in hand, all but one waiting; further callers get 503."""
LOOK_AGAIN_S = 0.25
"""Seconds until a busy replica is asked again."""


def heatmap_key(image_key: str) -> str:
    """Return where the overlay of a stored image lies, in bucket `predictions`."""
    return image_key.removesuffix(".png") + ".heatmap.png"


class HeatmapService:
    def __init__(self, service: PredictionService) -> None:
        self.service = service
        self._turn = asyncio.Semaphore(1)
        self._making: dict[str, asyncio.Task[bytes]] = {}

    async def png(self, row: DictRow) -> bytes:
        """Return the overlay of one record.

        Raises:
            Problem: 409 if the version that answered is not live, or makes no heatmaps; 503 if too many callers wait
                or a dependency does not answer.
        """
        key = heatmap_key(row["image_key"])
        stored = await self._read(key)
        if stored is not None:
            return stored
        if key not in self._making:
            target = self._target(row)
            if len(self._making) >= WAITING:
                raise _busy()
            task = asyncio.create_task(self._make(row, target, key))
            self._making[key] = task
            task.add_done_callback(lambda done: self._done(key, done))
        return await asyncio.shield(self._making[key])

    def _done(self, key: str, task: asyncio.Task[bytes]) -> None:
        del self._making[key]
        if not task.cancelled() and task.exception() is not None:  # also where its caller has gone
            logger.warning("no heatmap was made: %s", task.exception())

    def _target(self, row: DictRow) -> Target:
        """Return the live version that answered."""
        _, routes = self.service.live()
        for target in routes.targets:
            if target.version == row["served_version"]:
                return target
        raise Problem(
            409,
            f"version {row['served_version']} made this prediction and is no longer live; another version would "
            "show where it looked itself, so there is no heatmap unless that version comes back",
            reason="version_not_live",
        )

    async def _make(self, row: DictRow, target: Target, key: str) -> bytes:
        try:
            async with asyncio.timeout(DEADLINE_S), self._turn:
                snapshot, _ = self.service.live()
                card = snapshot.cards.get(target.version)
                if card is None:  # it could not be read yet
                    raise _busy()
                stored = await self._read(row["image_key"])
                if stored is None:
                    raise Problem(404, "the image of this prediction is not kept")
                shown_HW = await asyncio.to_thread(_decode, stored)
                pixels_HW = await asyncio.to_thread(scale, shown_HW, card.pixels)
                label = card.classes.index(row["answer"]["label"])
                while (heat_SS := await self._heat(target, pixels_HW, label)) is None:
                    await asyncio.sleep(LOOK_AGAIN_S)
                    made = await self._read(key)
                    if made is not None:
                        return made
                return await self._keep(key, await asyncio.to_thread(overlay, shown_HW, heat_SS))
        except TimeoutError as error:
            raise _busy() from error

    async def _heat(self, target: Target, pixels_HW: np.ndarray, label: int) -> np.ndarray | None:
        try:
            return await self.service.models.heat(target, pixels_HW, label)
        except InfrastructureError as error:
            raise unavailable("the classifier", retry_after_s=5) from error
        except ModelError as error:
            logger.exception("version %s gave no heat", target.version)
            detail = f"version {target.version} made this prediction and cannot make heatmaps"
            raise Problem(409, detail, reason="no_heatmap") from error

    async def _keep(self, key: str, png: bytes) -> bytes:
        try:
            await asyncio.to_thread(self.service.store.put, "predictions", key, png)
        except ObjectStoreError:
            logger.exception("a heatmap is answered and not kept")
        return png

    async def _read(self, key: str) -> bytes | None:
        try:
            return await asyncio.to_thread(self.service.store.get, "predictions", key)
        except FileNotFoundError:
            return None
        except ObjectStoreError as error:
            raise unavailable("the object store") from error


def _busy() -> Problem:
    return Problem(503, "other heatmaps are being made; retry", headers={"Retry-After": "2"})


def _decode(png: bytes) -> np.ndarray:
    """Decode a PNG that `encode_png` wrote."""
    return np.asarray(Image.open(io.BytesIO(png)))
