"""Background work in a replica, one task at a time and at low priority."""

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np


class SingleSlotExecutor:
    """Runs one heatmap at a time, in a thread whose low priority leaves the processor to predictions."""

    def __init__(self) -> None:
        self._taken = asyncio.Lock()
        self._behind = ThreadPoolExecutor(1, "heatmap", initializer=_step_back)

    async def try_run(self, function: Callable[..., np.ndarray], *arguments: Any) -> np.ndarray | None:
        """Run `function` in the thread and return its result; None at once while another task runs."""
        if self._taken.locked():
            return None
        async with self._taken:
            return await asyncio.get_running_loop().run_in_executor(self._behind, function, *arguments)


def _step_back() -> None:
    """Lower the priority of this thread and of those that it starts; on Linux each thread has its own."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)
