"""The MLflow model of one version of the classifier: image files or pixels in, calibrated probabilities out.

`train.release.mlflow_files` puts this file into the release bundle, where `mlflow.pyfunc.load_model` runs it.
Beside it lie the card, the safetensors weights and `predict.py`, whose transform it uses; it needs torch, timm and
their requirements, and nothing of the project. The weights are checked against the SHA-256 in the card.
"""

import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.pyfunc import PythonModel, PythonModelContext

IMAGE = "image"
BATCH = 16


class XrayVit(PythonModel):
    """Loaded by MLflow; `predict` may be called from one thread at a time."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load card and weights; raises ValueError (in one line) where the weights were changed."""
        import timm
        import torch
        from safetensors.torch import load

        folder = Path(context.artifacts["card"]).parent
        self.runner = _module(folder / "predict.py")
        self.card = self.runner.read_card(folder)
        self.pixels = self.card.pixels
        name = "model.safetensors"
        weights = load(self.runner.verified(folder, name, self.card.files[name]))
        architecture = self.card.architecture
        model = timm.create_model(architecture.timm, pretrained=False, **architecture.kwargs)
        model.load_state_dict(weights)
        self.model: torch.nn.Module = model.eval().requires_grad_(False)

    def predict(self, context: PythonModelContext, model_input, params=None):  # type: ignore[no-untyped-def]
        """Return calibrated probabilities, one row an image and one column a class.

        Args:
            model_input: PNG or JPEG files as bytes, in a list or in the column `image` of a table; or pixels as the
                dataset has them, uint8 (N, side, side).
        Raises:
            BadImageError: an image cannot be used; the message says why.
        """
        pixels_NHW = self._pixels(model_input)
        parts = [
            self._probabilities(pixels_NHW[start : start + BATCH])
            for start in range(0, len(pixels_NHW), BATCH)
        ]
        classes = self.card.classes
        return pd.DataFrame(np.concatenate(parts) if parts else np.zeros((0, len(classes))), columns=classes)

    def _pixels(self, model_input: Any) -> np.ndarray:
        side = self.pixels.side
        if isinstance(model_input, np.ndarray) and model_input.dtype == np.uint8:
            if model_input.ndim != 3 or model_input.shape[1:] != (side, side):
                raise ValueError(f"pixels are uint8 (N, {side}, {side}), got {model_input.shape}")
            return model_input
        blobs = model_input[IMAGE] if isinstance(model_input, pd.DataFrame) else model_input
        if isinstance(blobs, bytes) or not all(isinstance(blob, bytes) for blob in blobs):
            raise ValueError(
                f"give a list of files as bytes, a table with them in the column {IMAGE!r}, "
                f"or pixels as uint8 (N, {side}, {side})"
            )
        pixels = [self.runner.to_pixels(blob, self.pixels) for blob in blobs]
        return np.stack(pixels) if pixels else np.zeros((0, side, side), np.uint8)

    def _probabilities(self, pixels_NHW: np.ndarray) -> np.ndarray:
        import torch

        with torch.inference_mode():
            inputs_NCHW = torch.from_numpy(self.runner.to_model_input(pixels_NHW, self.pixels))
            logits_NK = self.model(inputs_NCHW).float().numpy()
        return self.runner.probabilities(logits_NK, self.card.calibration.temperature)


def _module(path: Path) -> types.ModuleType:
    """Load the runner as a module named after its folder, so that two versions can be loaded side by side."""
    name = f"xray_vit_predict_{abs(hash(path))}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up by name
    spec.loader.exec_module(module)
    return module
