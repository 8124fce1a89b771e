"""Stores the images of one front door in the object store, beside the request.

The stored image is the shown image: pixels only, so the file's own headers never leave this process. Knows no HTTP.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from cluster.objects import ObjectStore, ObjectStoreError
from data.imaging.preprocess import encode_png
from serve.ledger.writer import Records

THREADS = 4
"""Images that one front door stores at a time."""


class Images:
    def __init__(self, store: ObjectStore, records: Records) -> None:
        """Args: records has the health of the object store."""
        self._store = store
        self._records = records
        # A pool of its own: a silent object store must not occupy the threads that decode and scale.
        self._threads = ThreadPoolExecutor(THREADS, "images")

    async def keep(self, key: str, shown_HW: np.ndarray) -> bytes | None:
        """Store an image.

        Returns:
            the PNG if the object store is down: it then goes with the record.
        """
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._put, key, shown_HW)

    def _put(self, key: str, shown_HW: np.ndarray) -> bytes | None:
        png = encode_png(shown_HW)
        if not self._records.objects.is_up:
            return png
        try:
            self._store.put("predictions", key, png)
        except ObjectStoreError as error:
            self._records.objects.mark_down(error)
            return png
        return None
