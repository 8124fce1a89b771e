"""Images are stored beside the request, and go with the record while the object store is away."""

import asyncio
from types import SimpleNamespace
from typing import Any

import numpy as np

from cluster.objects import ObjectStoreError
from data.imaging.preprocess import encode_png
from serve.dependencies.health import DependencyHealth
from serve.ledger.image_writer import Images

SHOWN_HW = np.arange(64, dtype=np.uint8).reshape(8, 8)
PNG = encode_png(SHOWN_HW)


class Store:
    def __init__(self, *, away: bool = False) -> None:
        self.away = away
        self.objects: dict[str, bytes] = {}

    def put(self, bucket: str, key: str, blob: bytes) -> None:
        if self.away:
            raise ObjectStoreError("no answer")
        self.objects[f"{bucket}/{key}"] = blob


def kept(store: Any, health: DependencyHealth) -> bytes | None:
    records: Any = SimpleNamespace(objects=health)
    return asyncio.run(Images(store, records).keep("a.png", SHOWN_HW))


def test_an_image_is_stored_as_png() -> None:
    store = Store()
    assert kept(store, DependencyHealth("the object store")) is None
    assert store.objects == {"predictions/a.png": PNG}


def test_a_store_that_fails_is_marked_and_then_not_asked() -> None:
    store, health = Store(away=True), DependencyHealth("the object store")
    assert kept(store, health) == PNG
    assert not health.is_up
    store.away = False
    assert kept(store, health) == PNG
    assert store.objects == {}
