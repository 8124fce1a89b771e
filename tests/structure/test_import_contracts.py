"""Each room's layers, as pyproject.toml names them, hold on a sketch of the rooms and break where an import climbs."""

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("cluster", "data", "train", "serve", "jobs")
RUN = "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True, no_logo=True))"


def layers(room: str) -> list[list[str]]:
    """Return the layers of a room as the project's contract has them, top to bottom."""
    contracts: list[dict[str, Any]] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"][
        "importlinter"
    ]["contracts"]
    (contract,) = (contract for contract in contracts if contract.get("containers") == [room])
    return [[name.strip() for name in layer.split("|")] for layer in contract["layers"]]


def sketch(folder: Path, *, climbing: bool) -> None:
    """Write all rooms with their layers as empty modules, of which the lowest may import the highest."""
    lines = ["[importlinter]", "root_packages =", *(f"    {room}" for room in ROOMS)]
    for room in ROOMS:
        names = [name for layer in layers(room) for name in layer]
        (folder / room).mkdir()
        for name in ("__init__", *names):
            (folder / room / f"{name}.py").touch()
        if climbing:
            (folder / room / f"{names[-1]}.py").write_text(f"import {room}.{names[0]}\n")
        lines += [
            f"[importlinter:contract:{room}]",
            f"name = {room}",
            "type = layers",
            f"containers = {room}",
        ]
        lines += ["layers =", *(f"    {' | '.join(layer)}" for layer in layers(room))]
    (folder / ".importlinter").write_text("\n".join(lines))


@pytest.mark.parametrize("climbing", [False, True])
def test_an_import_from_the_lowest_layer_to_the_highest_breaks_the_contract(
    tmp_path: Path, climbing: bool
) -> None:
    sketch(tmp_path, climbing=climbing)
    result = subprocess.run(
        [sys.executable, "-c", RUN], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    verdict = "BROKEN" if climbing else "KEPT"
    assert [f"{room} {verdict}" in result.stdout for room in ROOMS] == [True] * len(ROOMS), (
        result.stdout + result.stderr
    )
    assert result.returncode == climbing
