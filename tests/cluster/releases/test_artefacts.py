import io
import json
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch

from cluster.releases import code_package
from cluster.releases.artefacts import ArtefactError, check


def saved() -> bytes:
    """What `torch.save` writes."""
    buffer = io.BytesIO()
    torch.save({"weight": torch.zeros(3)}, buffer)
    return buffer.getvalue()


def zipped(name: str, blob: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as package:
        package.writestr(name, blob)
    return buffer.getvalue()


SAFE = safetensors.numpy.save({"weight": np.zeros(3, np.float32)})
PICKLES = [pickle.dumps({"weight": 1}), saved()]
SAVED_ARRAY = io.BytesIO()
np.save(SAVED_ARRAY, np.array([{}], object), allow_pickle=True)


@pytest.mark.parametrize(
    ("name", "blob"),
    [
        ("model.safetensors", SAFE),
        ("model.onnx", b"\x08\x0a\x12\x07pytorch"),
        ("card.json", json.dumps({"classes": []}).encode()),
        ("predict.py", b"print(1)\n"),
        ("requirements.txt", b"numpy==2.4.6\n"),
        ("MLmodel", b"flavors: {}\n"),
        ("code.zip", code_package.build()),
    ],
)
def test_weights_and_text_may_lie_in_a_bundle(name: str, blob: bytes) -> None:
    check(name, blob)


@pytest.mark.parametrize("blob", PICKLES, ids=["pickle", "torch.save"])
@pytest.mark.parametrize(
    "name", ["model.pt", "model.pkl", "model.safetensors", "model.onnx", "card.json", "code.zip"]
)
def test_a_pickle_passes_under_no_name(name: str, blob: bytes) -> None:
    with pytest.raises(ArtefactError, match=f"{name} is a pickle"):
        check(name, blob)


@pytest.mark.parametrize(
    ("name", "blob"),
    [
        ("weights.npy", SAVED_ARRAY.getvalue()),
        ("notes.txt", SAVED_ARRAY.getvalue()),
        ("model.safetensors", SAFE[:20]),
        ("model.safetensors", (2**40).to_bytes(8, "little") + b"{}"),
        ("card.json", b"{"),
        ("card.json", b"[" * 100_000),
        ("predict.py", b"\xff\xfe"),
        ("program", b"\x7fELF"),
        ("code.zip", zipped("raydiology/serve/weights.pkl", pickle.dumps(1))),
        ("code.zip", zipped("raydiology/serve/deployments.py", pickle.dumps(1))),
        ("other.zip", zipped("a.py", b"x = 1\n")),
    ],
)
def test_what_is_not_what_its_name_says_is_refused(name: str, blob: bytes) -> None:
    with pytest.raises(ArtefactError, match=f"{name} is no file of the kinds"):
        check(name, blob)


def test_a_file_of_the_code_rooms_that_is_no_text_is_found(tmp_path: Path) -> None:
    (tmp_path / "serve").mkdir()
    (tmp_path / "serve/deployments.py").write_bytes(b"x = 1\n")
    check("code.zip", code_package.build(tmp_path, ("serve",)))
    (tmp_path / "serve/app.so").write_bytes(b"\x7fELF")
    with pytest.raises(ArtefactError):
        check("code.zip", code_package.build(tmp_path, ("serve",)))
