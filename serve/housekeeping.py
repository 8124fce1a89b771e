"""Brings Ray Serve and the registry after what the controller of rollouts decided; nothing waits for it.

A thread that is woken when routes change: it starts and ends replicas (`serve.reconciler`), takes a version that was
rolled back out of the routes, and moves the registry's aliases. What fails is done again until it works.
"""

import logging
import threading

import httpx
import psycopg

from cluster.database import connect
from cluster.expected import ExpectedError
from cluster.settings import Settings
from serve import reconciler, rollouts
from serve.rollout import Rollout

AGAIN_S = 5.0
"""How long it waits after it failed."""

logger = logging.getLogger(__name__)


class Housekeeping:
    """Implements `serve.controller.Machine`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._awake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="housekeeping", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        self._awake.set()

    def statuses(self) -> dict[str, str]:
        return reconciler.statuses(self._settings)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def _run(self) -> None:
        while True:
            self._awake.wait()
            self._awake.clear()
            for work in (self._bring_serve_after, self._bring_registry_after):
                try:
                    work()
                except (psycopg.Error, httpx.HTTPError, ExpectedError, ValueError, OSError) as error:
                    logger.warning("%s is tried again: %s: %s", work.__name__, type(error).__name__, error)
                    self._awake.set()
            if self._awake.is_set():
                threading.Event().wait(AGAIN_S)

    def _bring_serve_after(self) -> None:
        with connect(self._settings.database_url) as connection:
            rollouts.forget(connection)
        reconciler.reconcile(self._settings)

    def _bring_registry_after(self) -> None:
        with connect(self._settings.database_url) as connection:
            for one in rollouts.ended(connection):
                tell_registry(self._settings, one)
                rollouts.aliases_told(connection, one)


def tell_registry(settings: Settings, one: Rollout) -> None:
    """Move the aliases as the rollout ended; safe to repeat.

    Raises:
        RegistryError: MLflow does not answer.
    """
    from mlflow.exceptions import MlflowException  # seconds of imports, for a thing of once a week

    from cluster.registry import Registry, RegistryError

    try:
        registry = Registry(settings)
        if one.state == "promoted":
            registry.set_alias(one.model, "champion", one.version)
            registry.set_alias(one.model, "previous", one.champion)
        if registry.version_by_alias(one.model, "challenger") == one.version:
            registry.remove_alias(one.model, "challenger")
    except MlflowException as error:
        raise RegistryError(
            f"MLflow does not take the aliases of {one.model}: {str(error).splitlines()[0]}"
        ) from error
