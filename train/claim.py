"""One job at a time for one piece of work on the cluster; whoever holds it frees it by ending, however it ends."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import ray

from cluster.expected import ExpectedError

NAMESPACE = "raydiology-claims"
PATIENCE_S = 20.0
"""How long a second job waits before it gives up: the death of the first takes Ray a moment to see."""


class ClaimedError(ExpectedError):
    """Another job does this work already; the message says so in one line."""


class _Holder:
    """An actor whose name is the claim; Ray ends it with the process that made it."""


@contextmanager
def claim(key: str, patience_s: float = PATIENCE_S) -> Iterator[None]:
    """Hold `key` for as long as the context lasts; Ray is joined.

    Raises:
        ClaimedError: another job holds it, for longer than that.
    """
    deadline_s = time.monotonic() + patience_s
    while True:
        try:
            held = ray.remote(_Holder).options(name=key, namespace=NAMESPACE, num_cpus=0).remote()
            break
        except ValueError as error:  # what Ray says of a name that is taken
            if time.monotonic() > deadline_s:
                raise ClaimedError(
                    f"{key} is being worked on by another job: wait until that has ended, or take another --run name"
                ) from error
            time.sleep(0.5)
    try:
        yield
    finally:
        ray.kill(held)
