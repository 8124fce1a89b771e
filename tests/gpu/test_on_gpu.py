"""The training loop on a CUDA device: `make test-gpu`, on a machine that has one."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

SCRIPT = Path(__file__).with_name("on_gpu.py")
WAYS = [
    "ddp",
    "fsdp",
    "fsdp-offload",
    "fsdp-bfloat16",
    "ddp-bfloat16",
    "ddp-compile",
    "fsdp-compile",
    "fsdp-compile-kept",
    "levit",
    "zero2",
    "zero3-bfloat16",
]
LADDER = ["vit_small", "vit_base", "vit_large"]


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    if not torch.cuda.is_available():
        pytest.fail("this tier needs a CUDA device: `make test` runs all others")
    folder = tmp_path_factory.mktemp("gpu")
    subprocess.run([sys.executable, str(SCRIPT), str(folder)], check=True)
    found: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return found


@pytest.mark.parametrize("way", WAYS)
def test_a_killed_run_ends_with_the_same_bits_on_cuda(results: dict[str, Any], way: str) -> None:
    found = results[f"resume-{way}"]
    assert "error" not in found, found["error"]
    assert found["files"] >= 4
    assert found["differ"] == []


def test_the_first_losses_are_those_of_the_cpu(results: dict[str, Any]) -> None:
    found = results["same-losses"]
    assert len(found["cuda"]) == 8
    assert found["cuda"] == pytest.approx(found["cpu"], abs=1e-4)


@pytest.mark.parametrize("name", LADDER)
def test_memory_is_at_most_what_was_estimated_before_the_start(results: dict[str, Any], name: str) -> None:
    found = results[f"ladder-{name}"]
    assert "error" not in found, found["error"]
    assert found["estimated_gib"] / 2 < found["peak_gib"] < found["estimated_gib"] * 1.05
    assert results[f"ladder-{name}-compiled"]["peak_gib"] < found["peak_gib"] * 1.05
