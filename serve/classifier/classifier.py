"""The classifier of one model version: a release bundle in, calibrated probabilities out.

A plain class: `serve.deployments` wraps it for Ray Serve, tests call it directly. Any family of timm is loaded the same
way, from the name and the keyword arguments in its card.
"""

import logging
from pathlib import Path

import numpy as np
import torch

from data.imaging.preprocess import to_model_input
from data.model_card import CARD_FILE, OUTLIERS_FILE, WEIGHTS_FILE, ModelCard
from serve.classifier.ood_score import OodDetector
from serve.classifier.saliency import HeatConfig, heat

logger = logging.getLogger(__name__)


class Classifier:
    """Loads, checks and warms a timm model; ready when the constructor returns."""

    def __init__(self, directory: Path, *, threads: int = 1, device: str = "cpu") -> None:
        """Args: directory holds a verified bundle: `card.json`, `model.safetensors` and files that the card names."""
        import safetensors.numpy
        import timm
        from safetensors.torch import load_file

        if device == "cpu":
            torch.set_num_threads(threads)
        self.card = ModelCard.read(directory / CARD_FILE)
        self.device = device
        architecture = self.card.architecture
        model = timm.create_model(architecture.timm, pretrained=False, **architecture.kwargs)
        model.load_state_dict(load_file(directory / WEIGHTS_FILE))
        self.model = model.eval().requires_grad_(False).to(device)
        self.outliers: OodDetector | None = None
        if self.card.outliers is not None:
            self.outliers = OodDetector(safetensors.numpy.load_file(directory / OUTLIERS_FILE))
        side = self.card.pixels.side
        for batch in (1, 8):  # the first forward of a shape is several times slower than the next
            self.judged(np.zeros((batch, side, side), np.uint8))

    def logits(self, pixels_NHW: np.ndarray) -> np.ndarray:
        """Return raw outputs, float32 (N, classes), for uint8 pixels (N, side, side)."""
        return self._forward(pixels_NHW)[0]

    def probabilities(self, pixels_NHW: np.ndarray) -> np.ndarray:
        """Return calibrated probabilities, float64 (N, classes), for uint8 pixels (N, side, side)."""
        return self.judged(pixels_NHW)[:, :-1]

    def judged(self, pixels_NHW: np.ndarray) -> np.ndarray:
        """Return calibrated probabilities and, last, strangeness (`serve.classifier.ood_score`): float64 (N,
        classes + 1).

        Both come of one forward pass; the score is NaN if the card has no rule for it.
        """
        logits_NC, score_N = self._forward(pixels_NHW)
        scaled_NC = logits_NC.astype(np.float64) / self.card.calibration.temperature
        exponent_NC = np.exp(scaled_NC - scaled_NC.max(axis=1, keepdims=True))
        return np.column_stack([exponent_NC / exponent_NC.sum(axis=1, keepdims=True), score_N])

    @torch.inference_mode()
    def _forward(self, pixels_NHW: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        inputs_NCHW = torch.from_numpy(to_model_input(pixels_NHW, self.card.pixels)).to(self.device)
        if self.outliers is None:
            return self.model(inputs_NCHW).float().cpu().numpy(), np.full(len(pixels_NHW), np.nan)
        features_ND = self.model.forward_head(self.model.forward_features(inputs_NCHW), pre_logits=True)
        logits_NC = self.model.get_classifier()(features_ND)  # what the model's own forward ends with
        score_N = self.outliers.score(features_ND.float().cpu().numpy())
        return logits_NC.float().cpu().numpy(), score_N

    def each(self, pixels_NHW: np.ndarray) -> list[np.ndarray | str]:
        """Return `judged` for each image by itself: (classes + 1,), or the name of the error that the image causes.

        One bad image costs the other images of its batch time, never their answers.
        """
        try:
            return list(self.judged(pixels_NHW))
        except Exception as error:
            logger.exception("a batch of %d images failed", len(pixels_NHW))
            if len(pixels_NHW) == 1:
                return [type(error).__name__]
        return [row for nth in range(len(pixels_NHW)) for row in self.each(pixels_NHW[nth : nth + 1])]

    def heat(self, pixels_HW: np.ndarray, label: int) -> np.ndarray:
        """Return where the model sees the class of this index, float32 (side, side), 0 to 1, for uint8 (side, side)."""
        return heat(self.model, pixels_HW, label, self.card.pixels, HeatConfig())
