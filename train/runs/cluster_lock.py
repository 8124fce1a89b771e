"""A cluster-wide lock: one job at a time for one piece of work, freed however its holder ends."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import ray

from cluster.expected import ExpectedError

NAMESPACE = "raydiology-claims"
PATIENCE_S = 20.0
"""Seconds that a second job waits before it gives up: Ray needs a moment to notice the death of the first."""


class ClaimedError(ExpectedError):
    """Another job does this work already; one line."""


class _Holder:
    """An actor whose name is the claim; Ray ends it with the process that created it."""


@contextmanager
def claim(key: str, patience_s: float = PATIENCE_S) -> Iterator[None]:
    """Hold `key` for as long as the context lasts; the process is connected to Ray.

    Raises:
        ClaimedError: another job holds it for longer than `patience_s`.
    """
    deadline_s = time.monotonic() + patience_s
    while True:
        try:
            holder = ray.remote(_Holder).options(name=key, namespace=NAMESPACE, num_cpus=0).remote()
            break
        except ValueError as error:  # Ray's error for a name that is taken
            if time.monotonic() > deadline_s:
                raise ClaimedError(
                    f"{key} is being worked on by another job: wait until that has ended, or take another --run name"
                ) from error
            time.sleep(0.5)
    try:
        yield
    finally:
        ray.kill(holder)
