"""One piece of slow work at a time, behind what a replica is there for."""

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np


class Turn:
    """Lets a replica make one heatmap at a time, in a thread of its own that leaves the processor to predictions."""

    def __init__(self) -> None:
        self._taken = asyncio.Lock()
        self._behind = ThreadPoolExecutor(1, "heatmap", initializer=_step_back)

    async def take(self, look: Callable[..., np.ndarray], *arguments: Any) -> np.ndarray | None:
        """What `look` returns; None, at once, while another has the turn."""
        if self._taken.locked():
            return None
        async with self._taken:
            return await asyncio.get_running_loop().run_in_executor(self._behind, look, *arguments)


def _step_back() -> None:
    """For this thread and those that it starts; on Linux each has a priority of its own."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)
