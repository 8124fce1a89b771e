"""A gate for decoding: many files at a time, or one file alone.

`data.sandbox.decoder` repeats a file that ended its child while no other child works.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Gate:
    """Admits many files at a time, or one alone, which goes before all that come later."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._alone = 0
        """How many are alone or wait for it."""

    @contextmanager
    def together(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._alone)
            self._inside += 1
        try:
            yield
        finally:
            self._leave(alone=0)

    @contextmanager
    def alone(self) -> Iterator[None]:
        with self._changed:
            self._alone += 1
            try:
                self._changed.wait_for(lambda: not self._inside)
            except BaseException:
                self._alone -= 1
                raise
            self._inside = 1
        try:
            yield
        finally:
            self._leave(alone=1)

    def _leave(self, *, alone: int) -> None:
        with self._changed:
            self._inside -= 1
            self._alone -= alone
            self._changed.notify_all()
