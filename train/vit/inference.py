"""Rebuild a trained network from its card and run it, in one process: for calibration, evaluation and export.

Serving does the same with its own code; a test compares the two.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors.torch
import timm
import torch

from cluster.progress import OnProgress, silent
from data.imaging.preprocess import PixelConfig, to_model_input
from data.model_card import Architecture

BATCH = 64


def weights_sha256(weights: Mapping[str, torch.Tensor]) -> str:
    """Hash the raw little-endian bytes of the tensors, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(weights[name].detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def rebuild(architecture: Architecture, weights: bytes) -> torch.nn.Module:
    """Build a card's network with the weights of its safetensors file, in evaluation mode.

    Raises:
        RuntimeError: the weights are another architecture's.
    """
    model: torch.nn.Module = timm.create_model(architecture.timm, pretrained=False, **architecture.kwargs)
    model.load_state_dict(safetensors.torch.load(weights))
    return model.eval()


@torch.inference_mode()
def features(model: Any, pixels_NHW: np.ndarray, config: PixelConfig) -> np.ndarray | None:
    """Compute what the model's last layer sees, float32 (N, D); None for a model without a single last layer."""
    last = model.get_classifier()
    if not isinstance(last, torch.nn.Module):
        return None
    parts = []
    for start in range(0, len(pixels_NHW), BATCH):
        x_BCHW = torch.from_numpy(to_model_input(pixels_NHW[start : start + BATCH], config))
        parts.append(model.forward_head(model.forward_features(x_BCHW), pre_logits=True).float().numpy())
    return np.concatenate(parts)


@torch.inference_mode()
def logits(
    model: torch.nn.Module,
    pixels_NHW: np.ndarray,
    config: PixelConfig,
    progress: OnProgress = silent,
) -> np.ndarray:
    """Compute the model's raw outputs, float32 (N, K)."""
    parts = []
    for start in range(0, len(pixels_NHW), BATCH):
        x_BCHW = torch.from_numpy(to_model_input(pixels_NHW[start : start + BATCH], config))
        parts.append(model(x_BCHW).float().numpy())
        progress(min(start + BATCH, len(pixels_NHW)), len(pixels_NHW), "")
    return np.concatenate(parts) if parts else np.zeros((0, 0), dtype=np.float32)
