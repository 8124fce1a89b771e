"""Two runs compared bit by bit."""

from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy


def weights(folder: Path) -> dict[str, np.ndarray]:
    return safetensors.numpy.load((folder / "model.safetensors").read_bytes())


def assert_same_bits(one: Path, other: Path) -> None:
    left, right = weights(one), weights(other)
    assert left.keys() == right.keys()
    for name in left:
        assert np.array_equal(left[name], right[name]), name


def assert_same_state(gloo: Any, one: str, other: str) -> None:
    """All files of the last checkpoints: weights, moments, position, history."""
    folders = [
        gloo.folder / folder / "checkpoints" / gloo.results[result]["checkpoint"]
        for folder, result in (one.split("/"), other.split("/"))
    ]
    left, right = ({file.name: file.read_bytes() for file in folder.iterdir()} for folder in folders)
    assert left.keys() == right.keys()
    assert [name for name in left if left[name] != right[name]] == []
