"""How many trials can run at once without waiting for each other's processors.

A trial is a driver, which only waits and takes no processor, and its workers, which Ray places all together or not at
all. (Did a driver take one, as is usual, two drivers on two processors would wait for ever.) So no trial ever holds a
part of what another one waits for, whatever the number; the number keeps trials from starting that would only wait.
Pure arithmetic; knows no Ray.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from cluster.expected import ExpectedError
from train.config import TrainConfig


class CapacityError(ExpectedError):
    """Not even one trial has room; the message says what it needs and what there is."""


@dataclass(frozen=True, kw_only=True)
class Node:
    cpus: float
    gpus: float = 0.0


def room(nodes: Sequence[Node], config: TrainConfig) -> int:
    """Return the number of trials that have room; a trial's workers may lie on several nodes, each worker on one."""
    slots = sum(_workers(node, config) for node in nodes)
    return slots // (config.min_workers or config.num_workers)


def _workers(node: Node, config: TrainConfig) -> int:
    by_cpu = int(node.cpus // config.cpus_per_worker)
    return min(by_cpu, int(node.gpus)) if config.use_gpu else by_cpu


def concurrent(nodes: Sequence[Node], config: TrainConfig, *, wanted: int, trials: int) -> int:
    """Return the number of trials to run at once.

    Args:
        nodes: what the cluster has for trials.
        wanted: 0, as many as there is room for.
    Raises:
        CapacityError: there is room for none.
    """
    places = room(nodes, config)
    if not places:
        workers = config.min_workers or config.num_workers
        each = f"{config.cpus_per_worker} CPUs" + (" and a GPU" if config.use_gpu else "")
        has = ", ".join(f"{node.cpus:g} CPUs and {node.gpus:g} GPUs" for node in nodes) or "none"
        raise CapacityError(
            f"not even one trial has room: it takes {workers} workers of {each}, and the nodes have {has}: lower "
            "train.num_workers or train.cpus_per_worker, or add nodes (`ray status` says who has what)"
        )
    return max(1, min(places, wanted or places, trials))
