"""Thin Ray Serve wrappers over the plain classes, and the application builders that bundles import.

One application per model version, without a route; one front door. The front door chooses the version and
sends one micro-batch a version through the handle of that version's application.
"""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import ray.serve
from psycopg import AsyncConnection
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, RayServeException
from starlette.types import ASGIApp

from cluster import bundles
from cluster.objects import ObjectStore
from cluster.secrets import read_key
from cluster.settings import Settings
from data.sandbox import Decoder
from serve.card import Card
from serve.classifier import Classifier
from serve.desk import Board, Desk, DeskConfig, InfrastructureError, ModelError
from serve.explaining import Explaining
from serve.explanation import Finding
from serve.heatmap import Turn
from serve.http_app import build_app
from serve.rate_limit import RateConfig
from serve.records import Records
from serve.routing import Routes, Target

STORE_DEADLINE_S = 3.0
"""The object store's time to answer a front door, as long as PostgreSQL's: then the caller is told to come again."""
BATCH_SIZE = 16
BATCH_WAIT_S = 0.004
DECODERS = 2
"""Child processes of one front-door replica that decode uploads; started before it is ready."""


def app_name(model: str, version: str) -> str:
    """Name of the Serve application of one model version."""
    return f"{model}-v{version}"


def _bundle(bundle_key: str, names: tuple[str, ...] | None = None) -> Path:
    """Fetch a bundle into a folder of this process's own; verified."""
    directory = Path(tempfile.mkdtemp(prefix="raydiology-bundle-"))
    bundles.fetch(ObjectStore(Settings.from_env()), bundle_key, directory, names)
    return directory


class ClassifierReplica:
    def __init__(self, bundle_key: str, threads: int, device: str) -> None:
        names = ("card.json", "model.safetensors")
        self.classifier = Classifier(_bundle(bundle_key, names), threads=threads, device=device)
        self._turn = Turn()

    async def classify(self, pixels_NHW: np.ndarray) -> np.ndarray:
        """Calibrated probabilities, (N, classes)."""
        return await asyncio.to_thread(self.classifier.probabilities, pixels_NHW)

    async def heat(self, pixels_HW: np.ndarray, label: int) -> np.ndarray | None:
        """Where the classifier looked, (side, side); None, at once, while it looks for somebody else."""
        return await self._turn.take(self.classifier.heat, pixels_HW, label)


class ExplainerReplica:
    def __init__(self, bundle_key: str, threads: int, device: str) -> None:
        from serve.explainer import Explainer

        self.explainer = Explainer(_bundle(bundle_key), threads=threads, device=device)

    async def explain(self, finding: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """Events of one explanation, as the language model writes it."""
        async for event in self.explainer.explain(Finding.from_dict(finding)):
            yield event


class HandleModels:
    """Reaches the versions' applications through Serve handles, with one micro-batch a version."""

    def __init__(self) -> None:
        self._handles: dict[str, Any] = {}

    async def classify(self, target: Target, pixels_HW: np.ndarray) -> np.ndarray:
        result: np.ndarray | ModelError | InfrastructureError = await self._batched((target, pixels_HW))
        if isinstance(result, Exception):
            raise result
        return result

    @ray.serve.batch(max_batch_size=BATCH_SIZE, batch_wait_timeout_s=BATCH_WAIT_S, max_concurrent_batches=4)
    async def _batched(self, items: list[tuple[Target, np.ndarray]]) -> list[Any]:
        by_version: dict[str, list[int]] = {}
        for nth, (target, _) in enumerate(items):
            by_version.setdefault(target.version, []).append(nth)
        results: list[Any] = [None] * len(items)

        async def ask(nths: list[int]) -> None:
            target = items[nths[0]][0]
            try:
                handle = self._handle("xray-vit", target.version, "classifier")
                answers = await handle.classify.remote(np.stack([items[nth][1] for nth in nths]))
                if len(answers) != len(nths):
                    raise ModelError(f"{len(answers)} answers for {len(nths)} images")
            except Exception as error:  # noqa: BLE001 - sorted by kind, given to each caller, never dropped
                answers = [_sorted(error)] * len(nths)
            for nth, one in zip(nths, answers, strict=True):
                results[nth] = one

        await asyncio.gather(*(ask(nths) for nths in by_version.values()))
        return results

    async def explain(self, target: Target, finding: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        handle = self._handle("xray-llm", target.version, "explainer").options(stream=True)
        try:
            async for event in handle.explain.remote(finding):
                yield event
        except Exception as error:
            raise _sorted(error) from error

    async def heat(self, target: Target, pixels_HW: np.ndarray, label: int) -> np.ndarray | None:
        try:
            handle = self._handle("xray-vit", target.version, "classifier")
            heat_SS: np.ndarray | None = await handle.heat.remote(pixels_HW, label)
        except Exception as error:
            raise _sorted(error) from error
        return heat_SS

    def _handle(self, model: str, version: str, deployment: str) -> Any:
        name = app_name(model, version)
        if name not in self._handles:
            self._handles[name] = ray.serve.get_deployment_handle(deployment, app_name=name)
        return self._handles[name]


def _sorted(error: Exception) -> ModelError | InfrastructureError:
    """The model's own fault, or that of the machine under it."""
    infrastructure = (
        ray.exceptions.RayActorError,
        ray.exceptions.NodeDiedError,
        BackPressureError,
        DeploymentUnavailableError,
        RayServeException,
    )
    kind = InfrastructureError if isinstance(error, infrastructure) else ModelError
    renamed = kind(f"{type(error).__name__} at a replica")
    renamed.__cause__ = error
    return renamed


class FrontDoorReplica:
    def __init__(self, rates: RateConfig) -> None:
        self.rates = rates
        settings = Settings.from_env()
        self.store = ObjectStore(settings, deadline_s=STORE_DEADLINE_S)
        self.pool: AsyncConnectionPool[AsyncConnection[DictRow]] = AsyncConnectionPool(
            settings.database_url,
            min_size=2,
            max_size=8,
            open=False,
            timeout=3,
            kwargs={"row_factory": dict_row, "autocommit": True, "connect_timeout": 3},
        )
        self.desk = Desk(
            models=HandleModels(),
            decoder=Decoder(children=DECODERS),
            store=self.store,
            records=Records(self.pool),
            encryption_key=read_key(settings.encryption_key_path),
            pseudonym_key=read_key(settings.pseudonym_key_path),
            config=DeskConfig(),
        )

    def __serve_build_asgi_app__(self) -> ASGIApp:
        explaining = Explaining(self.desk)
        return build_app(self.desk, explaining, self.pool, server_echoes_ids=True, rates=self.rates)

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Take new routes, as `serve.reconciler` writes them: {model: [target, …]}."""
        routes = {
            model: Routes(model=model, targets=tuple(Target(**one) for one in targets))
            for model, targets in user_config["routes"].items()
        }
        cards = dict(self.desk.board.cards) if self.desk.board is not None else {}
        live = routes.get(self.desk.config.model)
        for target in live.targets if live is not None else ():
            if target.version not in cards:
                cards[target.version] = await asyncio.to_thread(_card, target.bundle_key)
        self.desk.board = Board(routes=routes, cards=cards)


def _card(bundle_key: str) -> Card:
    return Card.read(_bundle(bundle_key, ("card.json",)) / "card.json")


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
