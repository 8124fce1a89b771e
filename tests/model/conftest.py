"""The real language model, converted once a session (or once a machine where RAYDIOLOGY_HOME is set)."""

import os
from pathlib import Path

import pytest

from train.llm.base_weights import CONFIG_NAME, convert


@pytest.fixture(scope="session")
def llm_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = os.environ.get("RAYDIOLOGY_HOME")
    parent = Path(home) / "models" if home else tmp_path_factory.mktemp("models")
    return convert(parent / CONFIG_NAME)
