"""Thin Ray Serve wrappers over the plain classes, and the application builders that bundles import.

One application per model version, without a route; one front door, which reaches the versions through
`serve.front_door.replica_client`. Bundles of other releases import this module: path, builders and replica methods are
frozen.
"""

import asyncio
import gc
import os
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import ray.serve
from starlette.types import ASGIApp

from cluster.objects import ObjectStore
from cluster.releases import bundles
from cluster.secrets import read_key
from cluster.settings import Settings
from data.model_card import CARD_FILE, OUTLIERS_FILE, WEIGHTS_FILE, ModelCard
from data.sandbox.decoder import Decoder
from serve.access.auth import KeyRing
from serve.access.rate_limit import RateConfig
from serve.api.app import build_app
from serve.classifier.single_slot import SingleSlotExecutor
from serve.control.background_sync import BackgroundSync
from serve.control.controller import Controller
from serve.dependencies.postgres import PostgresConnection
from serve.explanation.explanation import Finding
from serve.front_door.explanation_service import ExplanationService
from serve.front_door.prediction_service import PredictionConfig, PredictionService
from serve.front_door.replica_client import HandleModels
from serve.front_door.serving_snapshot import ServingSnapshot, SnapshotWatcher
from serve.ledger.journal import Journal
from serve.ledger.writer import Records, RecordsConfig
from serve.routing.routes import Routes

STORE_DEADLINE_S = 3.0
"""Seconds that a front door waits for the object store; then it counts as down, and images go to the journal."""
GC_THRESHOLDS = (20_000, 20, 20)
"""A front door makes many objects a request and keeps none: Python's own 700 would collect all the time."""
DECODERS = 2
"""Child processes of one front-door replica that decode uploads; started before it is ready."""
CLASSIFIER_FILES = (CARD_FILE, WEIGHTS_FILE)


@contextmanager
def _bundle(
    bundle_key: str, names: tuple[str, ...] | None = None, optional: tuple[str, ...] = ()
) -> Iterator[Path]:
    """Fetch and verify a bundle, or these of its files, into a folder that lasts for the `with` block."""
    store = ObjectStore(Settings.from_env())
    if optional:
        listed = bundles.index(store, bundle_key)
        names = (*(names or ()), *(name for name in optional if name in listed))
    with tempfile.TemporaryDirectory(prefix="raydiology-bundle-") as folder:
        bundles.fetch(store, bundle_key, Path(folder), names)
        yield Path(folder)


class ClassifierReplica:
    def __init__(self, bundle_key: str, threads: int, device: str) -> None:
        # imports torch: two seconds and 250 MB that the other processes do without
        from serve.classifier.classifier import Classifier

        with _bundle(bundle_key, CLASSIFIER_FILES, optional=(OUTLIERS_FILE,)) as directory:
            self.classifier = Classifier(directory, threads=threads, device=device)
        self._heat_slot = SingleSlotExecutor()
        self._one_batch = ThreadPoolExecutor(1, "classify")
        """Two batches at once would each take twice as long, and the next batch could not grow meanwhile."""

    async def classify(self, pixels_NHW: np.ndarray, judged: bool = False) -> list[np.ndarray | str]:
        """Return each image's calibrated probabilities, (classes,), or the name of the error that it causes.

        Args:
            judged: with its OOD score at the end, (classes + 1,).
        """
        loop = asyncio.get_running_loop()
        rows = await loop.run_in_executor(self._one_batch, self.classifier.each, pixels_NHW)
        return rows if judged else [row if isinstance(row, str) else row[:-1] for row in rows]

    async def crash(self) -> None:
        """End this process, on a game day; front doors call it only where faults are allowed
        (`serve.routing.fault_injection`).
        """
        os._exit(1)

    async def heat(self, pixels_HW: np.ndarray, label: int) -> np.ndarray | None:
        """Compute a heatmap, (side, side); None at once while another one is computed."""
        return await self._heat_slot.try_run(self.classifier.heat, pixels_HW, label)


class ExplainerReplica:
    def __init__(self, bundle_key: str, threads: int, device: str) -> None:
        from serve.explanation.explainer import Explainer

        with _bundle(bundle_key) as directory:
            self.explainer = Explainer(directory, threads=threads, device=device)

    async def explain(self, finding: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """Stream the events of one explanation, as the language model writes it."""
        async for event in self.explainer.explain(Finding.from_dict(finding)):
            yield event


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
            PostgresConnection(
                settings.database_url, records.database, deadline_s=RecordsConfig().deadline_s
            ),
            copy=folder / "api_keys" if folder is not None else None,
            copy_key=encryption_key,
        )
        self.service = PredictionService(
            models=HandleModels(),
            decoder=Decoder(children=DECODERS),
            store=self.store,
            records=records,
            encryption_key=encryption_key,
            pseudonym_key=read_key(settings.pseudonym_key_path),
            config=PredictionConfig(),
        )
        self.settings = settings
        self.watcher = SnapshotWatcher(_card, self._publish, classifier=self.service.config.model)
        self._following: asyncio.Task[None] | None = None

    def _publish(self, snapshot: ServingSnapshot) -> None:
        self.service.snapshot = snapshot

    def __serve_build_asgi_app__(self) -> ASGIApp:
        return build_app(
            self.service,
            ExplanationService(self.service),
            self.keys,
            server_echoes_ids=True,
            rates=self.rates,
            settings=self.settings,
        )

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Take the routes that Ray Serve has (`serve.control.reconciler`), and follow PostgreSQL's from then on."""
        await self.watcher.take(
            {model: Routes.from_dict(routes) for model, routes in user_config["routes"].items()}
        )
        if self._following is None:
            self._following = asyncio.create_task(self.watcher.follow(self.settings.database_url))


def _card(bundle_key: str) -> ModelCard:
    with _bundle(bundle_key, (CARD_FILE,)) as directory:
        return ModelCard.read(directory / CARD_FILE)


class ControllerReplica:
    """Carries rollouts out; of several replicas one leads and the others wait."""

    def __init__(self) -> None:
        settings = Settings.from_env()
        self._sync = BackgroundSync(settings)
        controller = Controller(settings, self._sync)
        self._thread = threading.Thread(
            target=controller.run, args=(threading.Event(),), name="rollouts", daemon=True
        )
        self._thread.start()

    def check_health(self) -> None:
        """Raise if a thread has ended; Ray Serve then starts another replica."""
        if not (self._thread.is_alive() and self._sync.alive):
            raise RuntimeError("a thread of the controller has ended")


def classifier(args: dict[str, Any]) -> ray.serve.Application:
    """Build the application of one classifier version; args: bundle_key, threads, device."""
    deployment = ray.serve.deployment(name="classifier")(ClassifierReplica)
    return deployment.bind(args["bundle_key"], int(args["threads"]), args["device"])


def explainer(args: dict[str, Any]) -> ray.serve.Application:
    """Build the application of one LLM version; args: bundle_key, threads, device."""
    deployment = ray.serve.deployment(name="explainer")(ExplainerReplica)
    return deployment.bind(args["bundle_key"], int(args["threads"]), args["device"])


def front_door(args: dict[str, Any]) -> ray.serve.Application:
    """Build the one application with a route; args: rates, by role."""
    rates = RateConfig.from_dict(args.get("rates", {}))
    return ray.serve.deployment(name="front_door")(ray.serve.ingress()(FrontDoorReplica)).bind(rates)


def controller(args: dict[str, Any]) -> ray.serve.Application:
    """Build the application of the rollout controller; it takes no args and no requests."""
    return ray.serve.deployment(name="controller")(ControllerReplica).bind()
