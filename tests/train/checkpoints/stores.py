"""A checkpoint store that fails when it is told to."""

from collections.abc import Callable
from pathlib import Path

from train.checkpoints.store import CheckpointStore, Receipt


class Unsteady(CheckpointStore):
    """A store that fails while `broken` is set."""

    broken: OSError | None = None

    def put(self, name: str, file: Path) -> Receipt:
        self.ready()
        return super().put(name, file)

    def ready(self) -> None:
        if self.broken is not None:
            raise self.broken


def content(text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "rank-0000.safetensors").write_text(text)
