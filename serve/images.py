"""An image's way to the object store, for one front door; beside the request, which waits only for the end of it.

What is stored is what was shown: pixels only, so the file's own headers never leave this process. Knows no HTTP.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from cluster.objects import ObjectStore, ObjectStoreError
from data.preprocess import encode_png
from serve.records import Records

THREADS = 4
"""Images that one front door brings to the object store at a time."""


class Images:
    def __init__(self, store: ObjectStore, records: Records) -> None:
        """Args: records know whether the store is away, and are told when it does not answer."""
        self._store = store
        self._records = records
        # Of their own: an object store that says nothing must not take the threads that decode and scale.
        self._threads = ThreadPoolExecutor(THREADS, "images")

    async def keep(self, key: str, shown_HW: np.ndarray) -> bytes | None:
        """Store an image.

        Returns:
            the PNG, when the object store is away: it then goes with the record.
        """
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._put, key, shown_HW)

    def _put(self, key: str, shown_HW: np.ndarray) -> bytes | None:
        png = encode_png(shown_HW)
        if not self._records.objects.here:
            return png
        try:
            self._store.put("predictions", key, png)
        except ObjectStoreError as error:
            self._records.objects.lost(error)
            return png
        return None
