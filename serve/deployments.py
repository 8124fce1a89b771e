"""Thin Ray Serve wrappers over the plain classes, and the application builders that bundles import.

One application per model version, without a route; one front door. The front door chooses the version and
sends one micro-batch a version through the handle of that version's application.
"""

import asyncio
import gc
import os
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import ray.serve
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, RayServeException
from starlette.types import ASGIApp

from cluster import bundles
from cluster.objects import ObjectStore
from cluster.secrets import read_key
from cluster.settings import Settings
from data.sandbox import Decoder
from serve import outliers
from serve.absence import TOLD_S, Absence, running
from serve.answer import Classified
from serve.attempts import InfrastructureError, ModelError
from serve.auth import KeyRing
from serve.batches import Batches
from serve.board import Board, BoardKeeper
from serve.card import Card
from serve.controller import Controller
from serve.desk import Desk, DeskConfig
from serve.explaining import Explaining
from serve.explanation import Finding
from serve.housekeeping import Housekeeping
from serve.http_app import build_app
from serve.journal import Journal
from serve.line import Line
from serve.rate_limit import RateConfig
from serve.reconciler import app_name
from serve.records import Records, RecordsConfig
from serve.routing import Routes, Target
from serve.turn import Turn

STORE_DEADLINE_S = 3.0
"""The object store's time to answer a front door: then it counts as away, and images go to the journal."""
BATCH_SIZE = 16
BATCH_COMPANY_S = 0.004
"""How long an image waits for others, if the one before came no longer ago: then more than 250 come in a second."""
BATCH_GATHER_S = 0.02
"""How long images wait at least before a process that is busy gets a second batch."""
BATCH_LATE_S = 1.0
"""After which a batch no longer keeps others waiting."""
BATCH_DEADLINE_S = 10.0
"""After which a batch is given up, so that a version that hangs does not keep its callers' images for ever."""
GC_THRESHOLDS = (20_000, 20, 20)
"""A front door makes many objects a request and keeps none: with Python's own 700 it looks for garbage all the time."""
SERVE_NAMESPACE = "serve"
"""Of Ray Serve's actors, whose names are the replicas' full ids."""
DECODERS = 2
"""Child processes of one front-door replica that decode uploads; started before it is ready."""


CLASSIFIER_FILES = ("card.json", "model.safetensors")


@contextmanager
def _bundle(
    bundle_key: str, names: tuple[str, ...] | None = None, where_there: tuple[str, ...] = ()
) -> Iterator[Path]:
    """A bundle, or these of its files, verified, in a folder that is there while it is read."""
    store = ObjectStore(Settings.from_env())
    if where_there:
        listed = bundles.index(store, bundle_key)
        names = (*(names or ()), *(one for one in where_there if one in listed))
    with tempfile.TemporaryDirectory(prefix="raydiology-bundle-") as folder:
        bundles.fetch(store, bundle_key, Path(folder), names)
        yield Path(folder)


class ClassifierReplica:
    def __init__(self, bundle_key: str, threads: int, device: str) -> None:
        # torch: two seconds and 250 MB that the other processes do without
        from serve.classifier import Classifier

        with _bundle(bundle_key, CLASSIFIER_FILES, where_there=(outliers.FILE,)) as directory:
            self.classifier = Classifier(directory, threads=threads, device=device)
        self._turn = Turn()
        self._one_batch = ThreadPoolExecutor(1, "classify")
        """Two at once would each take twice as long, and the next batch could not grow meanwhile."""

    async def classify(self, pixels_NHW: np.ndarray, judged: bool = False) -> list[np.ndarray | str]:
        """Of each image its calibrated probabilities, (classes,), or the kind of error that it causes.

        Args:
            judged: with its strangeness at the end, (classes + 1,).
        """
        loop = asyncio.get_running_loop()
        rows = await loop.run_in_executor(self._one_batch, self.classifier.each, pixels_NHW)
        return rows if judged else [one if isinstance(one, str) else one[:-1] for one in rows]

    async def crash(self) -> None:
        """On a game day; front doors ask for it only where faults are allowed (`serve.faults`)."""
        os._exit(1)

    async def heat(self, pixels_HW: np.ndarray, label: int) -> np.ndarray | None:
        """Where the classifier looked, (side, side); None, at once, while it looks for somebody else."""
        return await self._turn.take(self.classifier.heat, pixels_HW, label)


class ExplainerReplica:
    def __init__(self, bundle_key: str, threads: int, device: str) -> None:
        from serve.explainer import Explainer

        with _bundle(bundle_key) as directory:
            self.explainer = Explainer(directory, threads=threads, device=device)

    async def explain(self, finding: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """Events of one explanation, as the language model writes it."""
        async for event in self.explainer.explain(Finding.from_dict(finding)):
            yield event


class VersionHandle:
    """One version of the classifier, reached in micro-batches of its own: one that is slow holds up no other."""

    def __init__(self, version: str) -> None:
        self.handle = _handle("xray-vit", version, "classifier")
        self._absence = Absence(version)
        self._batches = Batches(
            self._ask,
            most=BATCH_SIZE,
            processes=self._processes,
            company_s=BATCH_COMPANY_S,
            gather_s=BATCH_GATHER_S,
            late_s=BATCH_LATE_S,
        )

    async def classify(self, pixels_HW: np.ndarray, judged: bool) -> Classified:
        """See `serve.attempts.Models`."""
        said = await self._batches.one((pixels_HW, judged))
        if isinstance(said, Exception):
            raise said
        return said

    def _processes(self) -> int:
        return len(running(self.handle))

    async def _ask(
        self, images: Sequence[tuple[np.ndarray, bool]]
    ) -> Sequence[Classified | ModelError | InfrastructureError]:
        """Of each image what the model says, or what went wrong with this one."""
        judged = images[0][1]  # the same for all: it is the version's
        asked = {"judged": True} if judged else {}
        try:
            async with asyncio.timeout(BATCH_DEADLINE_S):
                answers = await self.handle.classify.remote(
                    np.stack([pixels_HW for pixels_HW, _ in images]), **asked
                )
        except Exception as error:  # noqa: BLE001 - sorted by kind, given to each caller, never dropped
            kind = _sorted(error)
            if isinstance(kind, InfrastructureError):
                kind.incident = self._absence.died(kind.incident)
            return [kind] * len(images)
        self._absence.answered()
        if len(answers) != len(images):
            return [ModelError(f"{len(answers)} answers for {len(images)} images")] * len(images)
        return [ModelError(one) if isinstance(one, str) else _read(one, judged) for one in answers]

    def away(self, since_s: float) -> str | None:
        """See `serve.attempts.Models`."""
        now_s, found = time.monotonic(), running(self.handle)
        if now_s - since_s >= TOLD_S:  # who has waited in vain is worth the question to Ray
            found = frozenset(one for one in found if _lives(one))
        self._absence.look(found, now_s)
        return self._absence.since(since_s)


def _lives(replica: str) -> bool:
    """Whether Ray knows the actor; Serve itself takes up to ten seconds to notice a death."""
    try:
        ray.get_actor(replica, namespace=SERVE_NAMESPACE)
    except ValueError:
        return False
    return True


class HandleModels:
    """Reaches the versions' applications through Serve handles; implements `serve.attempts.Models`."""

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
        handle = _handle("xray-llm", target.version, "explainer").options(stream=True)
        try:
            async for event in handle.explain.remote(finding):
                yield event
        except Exception as error:
            raise _sorted(error) from error

    async def crash(self, target: Target) -> None:
        try:
            await self._version(target).handle.crash.remote()
        except Exception as error:
            raise _sorted(error) from error

    async def heat(self, target: Target, pixels_HW: np.ndarray, label: int) -> np.ndarray | None:
        try:
            heat_SS: np.ndarray | None = await self._version(target).handle.heat.remote(pixels_HW, label)
        except Exception as error:
            raise _sorted(error) from error
        return heat_SS


def _read(row: np.ndarray, judged: bool) -> Classified:
    """One row of a replica's answer."""
    if not judged:
        return Classified(probabilities_C=row)
    return Classified(probabilities_C=row[:-1], strangeness=float(row[-1]))


def _handle(model: str, version: str, deployment: str) -> Any:
    return ray.serve.get_deployment_handle(deployment, app_name=app_name(model, version))


def _sorted(error: Exception) -> ModelError | InfrastructureError:
    """The model's own fault, or that of the machine under it."""
    infrastructure = (
        ray.exceptions.RayActorError,
        ray.exceptions.NodeDiedError,
        BackPressureError,
        DeploymentUnavailableError,
        RayServeException,
        TimeoutError,
    )
    said = f"{type(error).__name__} at a replica"
    renamed: ModelError | InfrastructureError = ModelError(said)
    if isinstance(error, infrastructure):
        renamed = InfrastructureError(said, incident=getattr(error, "actor_id", None))
    renamed.__cause__ = error
    return renamed


class FrontDoorReplica:
    def __init__(self, rates: RateConfig) -> None:
        gc.set_threshold(*GC_THRESHOLDS)
        self.rates = rates
        settings = Settings.from_env()
        self.store = ObjectStore(settings, deadline_s=STORE_DEADLINE_S)
        encryption_key = read_key(settings.encryption_key_path)
        folder = settings.journal
        journal = Journal(folder, encryption_key) if folder is not None else None
        records = Records(settings.database_url, self.store, journal)
        self.keys = KeyRing(
            Line(settings.database_url, records.database, deadline_s=RecordsConfig().deadline_s),
            copy=folder / "api_keys" if folder is not None else None,
            copy_key=encryption_key,
        )
        self.desk = Desk(
            models=HandleModels(),
            decoder=Decoder(children=DECODERS),
            store=self.store,
            records=records,
            encryption_key=encryption_key,
            pseudonym_key=read_key(settings.pseudonym_key_path),
            config=DeskConfig(),
        )

        self.settings = settings
        self.keeper = BoardKeeper(_card, self._hang, classifier=self.desk.config.model)
        self._following: asyncio.Task[None] | None = None

    def _hang(self, board: Board) -> None:
        self.desk.board = board

    def __serve_build_asgi_app__(self) -> ASGIApp:
        return build_app(
            self.desk,
            Explaining(self.desk),
            self.keys,
            server_echoes_ids=True,
            rates=self.rates,
            settings=self.settings,
        )

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Take the routes that Serve knows of (`serve.reconciler`), and those of PostgreSQL from then on."""
        await self.keeper.take(
            {model: Routes.from_dict(routes) for model, routes in user_config["routes"].items()}
        )
        if self._following is None:
            self._following = asyncio.create_task(self.keeper.follow(self.settings.database_url))


def _card(bundle_key: str) -> Card:
    with _bundle(bundle_key, ("card.json",)) as directory:
        return Card.read(directory / "card.json")


class ControllerReplica:
    """Carries rollouts out; where there are several, one leads and the others wait."""

    def __init__(self) -> None:
        settings = Settings.from_env()
        self._housekeeping = Housekeeping(settings)
        controller = Controller(settings, self._housekeeping)
        self._thread = threading.Thread(
            target=controller.run, args=(threading.Event(),), name="rollouts", daemon=True
        )
        self._thread.start()

    def check_health(self) -> None:
        """Asked by Serve, which starts another replica when it raises."""
        if not (self._thread.is_alive() and self._housekeeping.alive):
            raise RuntimeError("a thread of the controller has ended")


def classifier(args: dict[str, Any]) -> ray.serve.Application:
    """Application of one ViT version; args: bundle_key, threads, device."""
    deployment = ray.serve.deployment(name="classifier")(ClassifierReplica)
    return deployment.bind(args["bundle_key"], int(args["threads"]), args["device"])


def explainer(args: dict[str, Any]) -> ray.serve.Application:
    """Application of one LLM version; args: bundle_key, threads, device."""
    deployment = ray.serve.deployment(name="explainer")(ExplainerReplica)
    return deployment.bind(args["bundle_key"], int(args["threads"]), args["device"])


def front_door(args: dict[str, Any]) -> ray.serve.Application:
    """The one application with a route; args: rates, by role."""
    rates = RateConfig.from_dict(args.get("rates", {}))
    return ray.serve.deployment(name="front_door")(ray.serve.ingress()(FrontDoorReplica)).bind(rates)


def controller(args: dict[str, Any]) -> ray.serve.Application:
    """The controller of rollouts; it takes no args and no requests."""
    return ray.serve.deployment(name="controller")(ControllerReplica).bind()
