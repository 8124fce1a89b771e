"""Two real gloo ranks on the CPU, started once for all tests that look at what they did."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Gloo:
    folder: Path
    results: dict[str, Any]


def two_ranks(script: str, folder: Path) -> Gloo:
    """Run a script of this folder on two ranks, to its end; what it left."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    with (folder / "ranks.log").open("w") as log:
        ranks = [
            subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name(script)), str(rank), "2", str(folder)],
                env=env,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            for rank in range(2)
        ]
    try:
        codes = [rank.wait(timeout=540) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
    assert codes == [0, 0], (folder / "ranks.log").read_text()
    return Gloo(folder, json.loads((folder / "results.json").read_text()))


@pytest.fixture(scope="session")
def gloo(tmp_path_factory: pytest.TempPathFactory) -> Gloo:
    """What the scenarios of `ranks.py` left."""
    return two_ranks("ranks.py", tmp_path_factory.mktemp("gloo"))


@pytest.fixture(scope="session")
def strategies(tmp_path_factory: pytest.TempPathFactory) -> Gloo:
    """What the scenarios of `strategies.py` left."""
    return two_ranks("strategies.py", tmp_path_factory.mktemp("strategies"))
