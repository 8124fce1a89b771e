"""One process that reads a large split and watches what it takes: run as a script by `test_pixel_cache.py`.

python tests/train/inputs/large_split.py FOLDER mapped|memory
"""

import json
import sys
import threading
from pathlib import Path

import numpy as np
import torch

from data.dataset.versions import BUCKET
from data.imaging.preprocess import PixelConfig
from train.inputs import dataset
from train.inputs.sample_order import batches_per_epoch, epoch_order, global_batch


class FolderStore:
    """A bucket's objects as files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, bucket: str, key: str) -> bytes:
        assert bucket == BUCKET
        return (self.folder / key).read_bytes()

    def get_json(self, bucket: str, key: str) -> dict[str, object]:
        found: dict[str, object] = json.loads(self.get(bucket, key))
        return found


def own_bytes() -> int:
    """Memory that only this process has: the pages of a mapped file are not among it."""
    line = next(
        one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith("RssAnon")
    )
    return int(line.split()[1]) * 1024


class Watch(threading.Thread):
    """The most that was taken, looked at every few milliseconds."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.before = self.peak = own_bytes()
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.005):
            self.peak = max(self.peak, own_bytes())


def main() -> None:
    folder, way = Path(sys.argv[1]), sys.argv[2]
    torch.set_num_threads(1)
    store = FolderStore(folder)
    described = store.get_json(BUCKET, "v/manifest.json")
    watch = Watch()
    watch.start()
    limit = 0 if way == "mapped" else 2**40
    images = dataset._images(store, described, "train", limit)  # type: ignore[arg-type]
    side = described["settings"]["pixels"]["side"]  # type: ignore[index]
    seen: list[int] = []
    order_N = epoch_order(images.hashes, seed=1, epoch=0)
    for nth in range(batches_per_epoch(len(images), 50)):
        batch_B = global_batch(order_N, batch=nth, batch_size=50)
        x_BCHW = dataset.inputs(images, batch_B, PixelConfig(side=side))
        assert x_BCHW.shape == (len(batch_B), 1, side, side)
        for at in batch_B:  # each sample's pixels are its number
            number = int(images.hashes[at])
            assert images.pixels_NHW[at, 0, :4].tobytes() == np.uint32(number).tobytes()
            assert images.labels_N[at] == number % 3
            seen.append(number)
    assert sorted(seen) == list(range(len(images)))
    watch.over.set()
    watch.join()
    sys.stdout.write(json.dumps({"taken": watch.peak - watch.before, "seen": len(seen), "first": seen[:50]}))


if __name__ == "__main__":
    main()
