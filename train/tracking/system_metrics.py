"""Resource use of the machines that train – processor, memory, disk, network, GPUs – as system metrics of the run.

MLflow's own monitors sample, so its page `System metrics` shows the names. Sending is our own: MLflow's sender ends
for good after one failure, and may delay the end of training. One worker of each machine runs it, on background
threads.
"""

import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psutil

from train.tracking.mlflow_runs import MetricLog

if TYPE_CHECKING:
    from mlflow import MlflowClient

EVERY_S = 10.0
CLOSE_TIMEOUT_S = 5.0
TIME = "time_ms"
"""Key of the time of a sample; no metric."""

logger = logging.getLogger(__name__)


class SampleLog(MetricLog):
    """Sends samples as `MetricLog` sends epochs, at the second since the start of the run."""

    what = "system metrics"

    def __init__(self, tracking_uri: str, run_id: str, prefix: str) -> None:
        self._prefix = prefix
        self._begun_ms: int | None = None
        super().__init__(tracking_uri, run_id)

    def close(self) -> None:
        """Wait a moment; samples that MLflow has not accepted by then may be lost."""
        self.end(CLOSE_TIMEOUT_S)

    def _deliver(self, mlflow: "MlflowClient", run_id: str, rows: Sequence[Mapping[str, float]]) -> None:
        from mlflow.entities import Metric

        if self._begun_ms is None:
            self._begun_ms = int(mlflow.get_run(run_id).info.start_time)
        for row in rows:
            taken_ms = int(row[TIME])
            second = max(0, taken_ms - self._begun_ms) // 1000
            values = {self._prefix + name: value for name, value in row.items() if name != TIME}
            mlflow.log_batch(
                run_id, metrics=[Metric(name, value, taken_ms, second) for name, value in values.items()]
            )


def machine_name(node: int, workers_here: int, workers: int) -> str:
    """Name a machine among several that train; empty if it is the only one."""
    return "" if workers_here == workers else f"node-{node}"


@contextmanager
def watched(tracking_uri: str | None, run_id: str | None, machine: str = "") -> Iterator[None]:
    """Sample this machine every `EVERY_S`, and a last time at the end.

    Args:
        machine: part of the names if there are several machines.
    """
    if not tracking_uri or not run_id:
        yield
        return
    log = SampleLog(tracking_uri, run_id, f"system/{machine}/" if machine else "system/")
    ended = threading.Event()
    thread = threading.Thread(target=_look, args=(log, ended), name="system-metrics", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(CLOSE_TIMEOUT_S)
        log.close()


def _look(log: SampleLog, ended: threading.Event) -> None:
    psutil.cpu_percent()  # the first answer is always 0; each further one is the mean since the one before
    ended.wait(EVERY_S)
    monitors = _monitors()
    while True:
        last = ended.is_set()
        log.put(_sample(monitors))
        if last:
            return
        ended.wait(EVERY_S)


def _monitors() -> list[Any]:
    """Create the monitors when the first sample is due: a restarting worker cannot spare seconds of imports."""
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
    from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor
    from mlflow.system_metrics.metrics.rocm_monitor import ROCMMonitor

    monitors: list[Any] = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
    for of_gpus in (GPUMonitor, ROCMMonitor):
        try:
            monitors.append(of_gpus())
        except (ImportError, RuntimeError) as error:
            logger.info("%s sees no GPU: %s", of_gpus.__name__, error)
    return monitors


def _sample(monitors: Sequence[Any]) -> dict[str, float]:
    values: dict[str, float] = {TIME: time.time() * 1000}
    for monitor in monitors:
        monitor.collect_metrics()
        values |= {name: float(value) for name, value in monitor.aggregate_metrics().items()}
        monitor.clear_metrics()
    return values
