"""Decoding child processes that the tests of the sandbox share."""

import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from data.sandbox.decoder import Decoder
from tests.data.sandbox.hostile_files import HOSTILE, QUICK, png


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the hostile decoders are; readable for the child, which is nobody when we are root."""
    folder = tmp_path_factory.mktemp("decoders")
    (folder / "hostile_decoders.py").write_text(textwrap.dedent(HOSTILE) + f"\nGOOD = {png()!r}\n")
    return folder


@pytest.fixture(scope="module")
def hostile(folder: Path) -> Iterator[Decoder]:
    with Decoder(limits=QUICK, decoder="hostile_decoders:by_content", import_from=[folder]) as decoder:
        yield decoder


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    with Decoder() as decoder:
        yield decoder
