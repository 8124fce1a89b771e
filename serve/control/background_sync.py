"""Applies the rollout controller's decisions to Ray Serve and the model registry, and sends alerts, in the background.

One thread is woken when routes change: it starts and ends replicas (`serve.control.reconciler`), takes a version
that was rolled back out of the routes, and moves the registry's aliases. Another one sends an alert for each
freeze, hold and rollback, so that a webhook that does not answer holds nothing else up. What fails is done again
until it works.
"""

import logging
import threading
from collections.abc import Callable

import httpx
import psycopg

from cluster import alerts
from cluster.database import connect
from cluster.expected import ExpectedError, first_line
from cluster.settings import Settings
from serve.control import reconciler, rollout_events, rollout_store
from serve.control.plan import Rollout

AGAIN_S = 5.0
"""Pause after a failure."""
ALERTS_S = 2.0
"""How often events are looked at for alerts."""

logger = logging.getLogger(__name__)


class BackgroundSync:
    """Implements `serve.control.controller.ServingBackend`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._awake, self._stopped = threading.Event(), threading.Event()
        self._threads = [
            threading.Thread(target=work, name=name, daemon=True)
            for name, work in (("background sync", self._sync), ("rollout alerts", self._alert))
        ]
        for thread in self._threads:
            thread.start()

    def wake(self) -> None:
        self._awake.set()

    def statuses(self) -> dict[str, str]:
        return reconciler.statuses(self._settings)

    @property
    def alive(self) -> bool:
        return all(thread.is_alive() for thread in self._threads)

    def stop(self) -> None:
        """End both threads, after the work that they are at."""
        self._stopped.set()
        self._awake.set()
        for thread in self._threads:
            thread.join()

    def _sync(self) -> None:
        while True:
            self._awake.wait()
            if self._stopped.is_set():
                return
            self._awake.clear()
            for work in (self._sync_serve, self._sync_registry):
                if not _succeeds(work):
                    self._awake.set()
            if self._awake.is_set():
                self._stopped.wait(AGAIN_S)

    def _alert(self) -> None:
        while not self._stopped.is_set():
            self._stopped.wait(ALERTS_S if _succeeds(lambda: send_alerts(self._settings)) else AGAIN_S)

    def _sync_serve(self) -> None:
        with connect(self._settings.database_url) as connection:
            rollout_store.remove_finished_canaries(connection)
        reconciler.reconcile(self._settings)

    def _sync_registry(self) -> None:
        with connect(self._settings.database_url) as connection:
            for rollout in rollout_store.ended(connection):
                set_aliases(self._settings, rollout)
                rollout_store.aliases_told(connection, rollout)


def _succeeds(work: Callable[[], None]) -> bool:
    """Do the work; a service that is away is logged."""
    try:
        work()
    except (psycopg.Error, httpx.HTTPError, ExpectedError, ValueError, OSError) as error:
        logger.warning(
            "%s is tried again: %s: %s", threading.current_thread().name, type(error).__name__, error
        )
        return False
    return True


def send_alerts(settings: Settings) -> None:
    """Tell operators of each freeze, hold and rollback that they were not told of yet, once.

    Raises:
        psycopg.Error: the database does not answer.
    """
    with connect(settings.database_url) as connection:
        for event in rollout_events.claim_alerts(connection):
            details = rollout_events.alert_details(event)
            summary = (
                f"rollout {details['rollout']} of {details['model']} version {details['version']}: "
                f"{event['action'].replace('_', ' ')}, {details['why']}"
            )
            delivery = alerts.send(settings, f"rollout_{event['action']}", summary, details)
            rollout_events.alert_sent(connection, event["event_id"], str(delivery))


def set_aliases(settings: Settings, rollout: Rollout) -> None:
    """Move the registry's aliases as the rollout ended; safe to repeat.

    Raises:
        RegistryError: MLflow does not answer.
    """
    from mlflow.exceptions import MlflowException  # seconds of imports, for a rare event

    from cluster.releases.registry import Registry, RegistryError

    try:
        registry = Registry(settings)
        if rollout.state == "promoted":
            registry.set_alias(rollout.model, "champion", rollout.version)
            registry.set_alias(rollout.model, "previous", rollout.champion)
        if registry.version_by_alias(rollout.model, "challenger") == rollout.version:
            registry.remove_alias(rollout.model, "challenger")
    except MlflowException as error:
        raise RegistryError(
            f"MLflow does not take the aliases of {rollout.model}: {first_line(error)}"
        ) from error
