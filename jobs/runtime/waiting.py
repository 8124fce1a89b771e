"""Waits for something to happen, within a time."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_for(
    look: Callable[[], T | None], within_s: float, late: Callable[[], Exception], *, every_s: float = 0.5
) -> T:
    """Call `look` until it returns something true; returns that.

    Raises:
        Exception: the one that `late` makes, after `within_s` seconds.
    """
    ends_s = time.monotonic() + within_s
    while not (result := look()):
        if time.monotonic() > ends_s:
            raise late()
        time.sleep(every_s)
    return result
