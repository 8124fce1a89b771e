"""Map work over pieces on the cluster's cores: `data.dataset.etl` stages blocks and writes parts through it.

A piece whose worker or node dies is begun again elsewhere. Knows Ray, and nothing of what the work is.
"""

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar

import pyarrow as pa
import ray
import ray.data

P = TypeVar("P")
R = TypeVar("R")

RETRIES = 5
"""How often `through_tasks` begins a piece again whose worker or node died, before the run ends. Ray Data has no
such bound to set: what could kill a worker must not be done in one."""


def at_once() -> int:
    """Return the number of pieces in work at a time: one a core.

    A node may be configured with more CPUs than it has, as the embedded platform's is; eight workers that start on
    two cores at once are all late.
    """
    ours = ray.get_runtime_context().get_node_id()
    cpus = next(node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["NodeID"] == ours)
    per_core = max(1.0, cpus / len(os.sched_getaffinity(0)))
    return max(1, int(ray.cluster_resources().get("CPU", 1.0) / per_core))


def through_blocks(tables: Iterable[pa.Table], work: Callable[[pa.Table], pa.Table]) -> Iterator[pa.Table]:
    """Run `work` on each table, in a worker, with Ray Data; the results as they come, in any order.

    Raises:
        ray.exceptions.RayError: the work failed.
    """
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    cut = list(tables)
    dataset = ray.data.from_arrow(cut).map_batches(
        work,
        batch_size=None,
        batch_format="pyarrow",
        num_cpus=1,
        compute=ray.data.TaskPoolStrategy(size=min(at_once(), len(cut))),
    )
    yield from dataset.iter_batches(batch_size=None, batch_format="pyarrow")


def through_tasks(work: Callable[..., R], pieces: Iterable[P], *shared: Any) -> Iterator[tuple[int, R]]:
    """Run `work(piece, *shared)` in workers; the number of each piece and its result, as they come.

    Only pieces in work are held, here and in the object store.

    Raises:
        ray.exceptions.RayError: the work failed, or its workers died too often.
    """
    task = ray.remote(num_cpus=1, max_retries=RETRIES, scheduling_strategy="SPREAD")(work)
    put = [ray.put(value) for value in shared]
    coming = enumerate(pieces)
    in_work = {task.remote(piece, *put): number for number, piece in islice(coming, at_once())}
    while in_work:
        (done,), _ = ray.wait(list(in_work), num_returns=1)
        number = in_work.pop(done)
        yield number, ray.get(done)
        in_work.update({task.remote(piece, *put): next_number for next_number, piece in islice(coming, 1)})
