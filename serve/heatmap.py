"""Where a classifier looked: how much each place of an image speaks for the class that was told.

Integrated gradients (Sundararajan et al., arXiv:1703.01365) from the image's own blurred copy to the image, so that
what is explained is what blurring takes away; their sum is what the detail adds to the logarithm of the class's
probability, and an image without detail has no heat. They need a model's gradient and nothing of its inside: any
architecture of timm will do, and predictions run beside them. docs/decisions/0020 says why it is neither Grad-CAM nor
attention rollout. Runs in the classifier's replica; knows no HTTP.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import torch

from data.preprocess import PixelConfig, to_model_input


@dataclass(frozen=True, kw_only=True)
class HeatConfig:
    """Measured on planted signs (docs/experiments.md)."""

    steps: int = 12
    """Images between the blurred copy and the image at which the gradient is taken."""
    steps_at_once: int = 4
    """Of them in one batch, which bounds the memory."""
    blur: float = 1 / 16
    """Deviation of the Gaussian that blurs the copy, of the side."""
    smooth: float = 1 / 32
    """Deviation of the Gaussian over the attributions, of the side: single pixels tell nothing."""
    full_nats: float = 1.0
    """Full colour from here on: by so much do all places together raise the logarithm of the class's probability.
    Where they raise it by less, the colour is fainter."""


def heat(
    model: torch.nn.Module, pixels_HW: np.ndarray, label: int, pixels: PixelConfig, config: HeatConfig
) -> np.ndarray:
    """How much each place speaks for a class.

    Args:
        model: in evaluation mode; it is left as it was.
        pixels_HW: uint8, (side, side), as the model sees the image.
        label: index of the class.
    Returns:
        heat_HW: float32, (side, side), 0 = says nothing or speaks against it, 1 = the most.
    """
    from captum.attr import IntegratedGradients  # seconds, which a replica's start need not wait for

    device = next(model.parameters()).device
    blurred_HW = _gaussian(pixels_HW.astype(np.float32), config.blur)
    image_1CHW, blurred_1CHW = (
        torch.from_numpy(to_model_input(one[None], pixels)).to(device) for one in (pixels_HW, blurred_HW)
    )
    told_1CHW = IntegratedGradients(lambda x_NCHW: model(x_NCHW).log_softmax(1)).attribute(
        image_1CHW,
        blurred_1CHW,
        target=label,
        n_steps=config.steps,
        internal_batch_size=config.steps_at_once,
    )
    told_HW = _gaussian(told_1CHW[0].sum(0).detach().float().cpu().numpy(), config.smooth)
    heat_HW = np.maximum(told_HW, 0)
    together, most = float(heat_HW.sum()), float(heat_HW.max())
    if most <= 0:
        return np.zeros_like(heat_HW)
    scaled_HW: np.ndarray = heat_HW * (min(1.0, together / config.full_nats) / most)
    return scaled_HW


def _gaussian(image_HW: np.ndarray, share: float) -> np.ndarray:
    """Blur by a deviation that is this share of the side; what lies outside is like the edge."""
    deviation = share * image_HW.shape[0]
    return np.asarray(cv2.GaussianBlur(image_HW, (0, 0), deviation, borderType=cv2.BORDER_REPLICATE))
