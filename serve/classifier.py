"""The ViT of one model version: a release bundle in, calibrated probabilities out.

A plain class: `serve.deployments` wraps it for Ray Serve, tests call it directly.
"""

import logging
from pathlib import Path

import numpy as np
import torch

from data.preprocess import to_model_input
from serve.card import Card
from serve.heatmap import HeatConfig, heat

logger = logging.getLogger(__name__)


class Classifier:
    """Loads, checks and warms a timm model; ready when the constructor returns."""

    def __init__(self, directory: Path, *, threads: int = 1, device: str = "cpu") -> None:
        """Args: directory holds `card.json` and `model.safetensors` of a verified bundle."""
        import timm
        from safetensors.torch import load_file

        if device == "cpu":
            torch.set_num_threads(threads)
        self.card = Card.read(directory / "card.json")
        self.device = device
        model = timm.create_model(self.card.timm_name, pretrained=False, **self.card.timm_kwargs)
        model.load_state_dict(load_file(directory / "model.safetensors"))
        self.model = model.eval().requires_grad_(False).to(device)
        side = self.card.pixels.side
        for batch in (1, 8):  # the first forward of a shape is several times slower than the next
            self.probabilities(np.zeros((batch, side, side), np.uint8))

    @torch.inference_mode()
    def logits(self, pixels_NHW: np.ndarray) -> np.ndarray:
        """Raw outputs, float32 (N, classes), for uint8 pixels (N, side, side)."""
        inputs_NCHW = torch.from_numpy(to_model_input(pixels_NHW, self.card.pixels)).to(self.device)
        logits_NC: np.ndarray = self.model(inputs_NCHW).float().cpu().numpy()
        return logits_NC

    def probabilities(self, pixels_NHW: np.ndarray) -> np.ndarray:
        """Calibrated probabilities, float64 (N, classes), for uint8 pixels (N, side, side)."""
        scaled_NC = self.logits(pixels_NHW).astype(np.float64) / self.card.calibration.temperature
        exponent_NC = np.exp(scaled_NC - scaled_NC.max(axis=1, keepdims=True))
        probabilities_NC: np.ndarray = exponent_NC / exponent_NC.sum(axis=1, keepdims=True)
        return probabilities_NC

    def each(self, pixels_NHW: np.ndarray) -> list[np.ndarray | str]:
        """The same for each image by itself: (classes,), or the name of the error of an image that causes one.

        One bad image costs its companions time, never their answers.
        """
        try:
            return list(self.probabilities(pixels_NHW))
        except Exception as error:
            logger.exception("a batch of %d images failed", len(pixels_NHW))
            if len(pixels_NHW) == 1:
                return [type(error).__name__]
        return [one for nth in range(len(pixels_NHW)) for one in self.each(pixels_NHW[nth : nth + 1])]

    def heat(self, pixels_HW: np.ndarray, label: int) -> np.ndarray:
        """Where the model saw the class of this index, float32 (side, side), 0 to 1, for uint8 (side, side)."""
        return heat(self.model, pixels_HW, label, self.card.pixels, HeatConfig())
