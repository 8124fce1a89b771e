"""A small drawn data set, written once for the tests of this folder."""

from pathlib import Path

import pytest

from data.synthetic.generator import (
    generate,
)
from tests.data.synthetic.drawn import SMALL


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate(SMALL, tmp_path_factory.mktemp("synthetic"))
