"""Reaches the replicas of a model version through Ray Serve handles, in one micro-batch a version.

Implements `serve.front_door.attempts.Models` for the front door. Ray Serve's handle routes and queues; this module
adds batching by back-pressure (`serve.front_door.batching`) and sorts errors into the model's and the
infrastructure's.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import numpy as np
import ray.serve
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, RayServeException

from cluster.releases.registry import LLM, VIT
from serve.classifier.answer import Classified
from serve.front_door.attempts import InfrastructureError, ModelError
from serve.front_door.batching import Batcher
from serve.front_door.replica_outage import DISCOVERY_S, ReplicaOutage, running_replicas
from serve.routing.routes import Target, app_name

BATCH_SIZE = 16
BATCH_WAIT_S = 0.004
"""Seconds that an image waits for others if the last one came no longer ago: more than 250 a second then."""
SECOND_BATCH_WAIT_S = 0.02
"""Seconds that images wait at least before a busy process gets a second batch."""
BATCH_STALL_S = 1.0
"""Seconds after which a batch no longer holds up others."""
BATCH_DEADLINE_S = 10.0
"""Seconds after which a batch is given up, so that a hanging version does not keep images for ever."""
SERVE_NAMESPACE = "serve"
"""Ray namespace of Serve's actors, whose names are the replicas' full ids."""


class VersionHandle:
    """One version of the classifier, with micro-batches of its own: a slow version holds up no other."""

    def __init__(self, version: str) -> None:
        self.handle = _handle(VIT, version, "classifier")
        self._outage = ReplicaOutage(version)
        self._batcher = Batcher(
            self._ask,
            max_batch_size=BATCH_SIZE,
            processes=self._processes,
            batch_wait_s=BATCH_WAIT_S,
            second_batch_wait_s=SECOND_BATCH_WAIT_S,
            stall_timeout_s=BATCH_STALL_S,
        )

    async def classify(self, pixels_HW: np.ndarray, judged: bool) -> Classified:
        """Classify one image, see `serve.front_door.attempts.Models`."""
        result = await self._batcher.submit((pixels_HW, judged))
        if isinstance(result, Exception):
            raise result
        return result

    def _processes(self) -> int:
        return len(running_replicas(self.handle))

    async def _ask(
        self, images: Sequence[tuple[np.ndarray, bool]]
    ) -> Sequence[Classified | ModelError | InfrastructureError]:
        """Return for each image the classification, or the error of this image."""
        judged = images[0][1]  # the same for all images of a version
        options = {"judged": True} if judged else {}  # replicas of older bundles do not take it
        try:
            async with asyncio.timeout(BATCH_DEADLINE_S):
                answers = await self.handle.classify.remote(
                    np.stack([pixels_HW for pixels_HW, _ in images]), **options
                )
        except Exception as error:  # noqa: BLE001 - sorted by kind, given to each caller, never dropped
            kind = _classify_error(error)
            if isinstance(kind, InfrastructureError):
                kind.incident = self._outage.record_death(kind.incident)
            return [kind] * len(images)
        self._outage.answered()
        if len(answers) != len(images):
            return [ModelError(f"{len(answers)} answers for {len(images)} images")] * len(images)
        return [ModelError(row) if isinstance(row, str) else _read(row, judged) for row in answers]

    def away(self, since_s: float) -> str | None:
        """Return the incident of an outage, see `serve.front_door.attempts.Models`."""
        now_s, replicas = time.monotonic(), running_replicas(self.handle)
        if now_s - since_s >= DISCOVERY_S:  # a request that waited in vain justifies a call to Ray
            replicas = frozenset(replica for replica in replicas if _lives(replica))
        self._outage.observe(replicas, now_s)
        return self._outage.outage_since(since_s)


def _lives(replica: str) -> bool:
    """Return True if Ray knows the actor; Serve itself takes up to ten seconds to notice a death."""
    try:
        ray.get_actor(replica, namespace=SERVE_NAMESPACE)
    except ValueError:
        return False
    return True


class HandleModels:
    """Reaches the versions' applications through Serve handles; implements `serve.front_door.attempts.Models`."""

    def __init__(self) -> None:
        self._versions: dict[str, VersionHandle] = {}

    def _version(self, target: Target) -> VersionHandle:
        if target.version not in self._versions:
            self._versions[target.version] = VersionHandle(target.version)
        return self._versions[target.version]

    async def classify(self, target: Target, pixels_HW: np.ndarray, judged: bool) -> Classified:
        return await self._version(target).classify(pixels_HW, judged)

    def away(self, target: Target, since_s: float) -> str | None:
        return self._version(target).away(since_s)

    async def explain(self, target: Target, finding: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        handle = _handle(LLM, target.version, "explainer").options(stream=True)
        try:
            async for event in handle.explain.remote(finding):
                yield event
        except Exception as error:
            raise _classify_error(error) from error

    async def crash(self, target: Target) -> None:
        try:
            await self._version(target).handle.crash.remote()
        except Exception as error:
            raise _classify_error(error) from error

    async def heat(self, target: Target, pixels_HW: np.ndarray, label: int) -> np.ndarray | None:
        try:
            heat_SS: np.ndarray | None = await self._version(target).handle.heat.remote(pixels_HW, label)
        except Exception as error:
            raise _classify_error(error) from error
        return heat_SS


def _read(row: np.ndarray, judged: bool) -> Classified:
    """Read one row of a replica's answer."""
    if not judged:
        return Classified(probabilities_C=row)
    return Classified(probabilities_C=row[:-1], strangeness=float(row[-1]))


def _handle(model: str, version: str, deployment: str) -> Any:
    return ray.serve.get_deployment_handle(deployment, app_name=app_name(model, version))


def _classify_error(error: Exception) -> ModelError | InfrastructureError:
    """Tell an error of the model from one of the infrastructure under it."""
    infrastructure = (
        ray.exceptions.RayActorError,
        ray.exceptions.NodeDiedError,
        BackPressureError,
        DeploymentUnavailableError,
        RayServeException,
        TimeoutError,
    )
    message = f"{type(error).__name__} at a replica"
    renamed: ModelError | InfrastructureError = ModelError(message)
    if isinstance(error, infrastructure):
        renamed = InfrastructureError(message, incident=getattr(error, "actor_id", None))
    renamed.__cause__ = error
    return renamed
