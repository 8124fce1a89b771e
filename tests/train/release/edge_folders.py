"""Files for the edge runner, and the runner in a process that cannot import the project."""

import functools
import io
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from data.imaging.preprocess import PixelConfig
from data.synthetic.generator import SyntheticConfig, draw, subjects

PIXELS = PixelConfig(side=64)


ONLY_THOSE = """
import importlib.abc, runpy, sys
class Guard(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"cv2", "torch", "pydicom", "scipy", "timm", "data", "train", "cluster", "serve"}:
            raise ModelessError(name)
class ModelessError(ImportError):
    pass
sys.meta_path.insert(0, Guard())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@functools.cache
def drawn() -> list[bytes]:
    """Synthetic films as PNG of 8 and 16 bits, and the same as JPEG; with text, odd sides, colour modes."""
    config = SyntheticConfig(images=30, side=301)
    blobs = []
    for subject, _ in zip(subjects(config), range(14), strict=False):
        blob, _, _ = draw(config, subject, 1, np.random.default_rng(subject.seed))
        if blob.startswith(b"\x89PNG"):
            blobs.append(blob)
    grey = Image.open(io.BytesIO(blobs[0])).convert("L")
    lettered = np.asarray(grey).copy()
    cv2.putText(lettered, "PAT 4711 L", (10, 40), cv2.FONT_HERSHEY_SIMPLEX, 0.8, 255, 2)
    for image, kind in (
        (Image.fromarray(lettered), "PNG"),
        (Image.fromarray(lettered), "JPEG"),
        (Image.fromarray(np.kron(lettered, np.ones((3, 3), np.uint8))), "JPEG"),
        (grey.convert("RGB"), "JPEG"),
        (grey.convert("RGBA"), "PNG"),
        (grey.resize((500, 120)), "PNG"),
        (Image.fromarray(np.asarray(grey).astype(np.uint16) * 200), "PNG"),
    ):
        buffer = io.BytesIO()
        image.save(buffer, kind)
        blobs.append(buffer.getvalue())
    return blobs


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", "-c", ONLY_THOSE, str(folder / "predict.py"), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
