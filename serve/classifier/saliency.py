"""How much each place of an image speaks for the answered class: integrated gradients.

The path goes from the image's own blurred copy to the image (Sundararajan et al., arXiv:1703.01365), so it explains
the detail that blurring removes; the attributions sum to what the detail adds to the log-probability of the class,
and an image without detail has no heat. It needs a model's gradient and nothing of its inside: any architecture of
timm works, and predictions run beside it. docs/decisions/0020 says why it is neither Grad-CAM nor attention rollout.
Runs in the classifier's replica; knows no HTTP.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import torch

from data.imaging.preprocess import PixelConfig, to_model_input


@dataclass(frozen=True, kw_only=True)
class HeatConfig:
    """Settings, measured on planted signs (docs/experiments.md)."""

    steps: int = 12
    """Points of the path at which the gradient is taken."""
    steps_at_once: int = 4
    """Images in one batch, which bounds the memory."""
    blur: float = 1 / 16
    """Standard deviation of the Gaussian that blurs the copy, as a share of the side."""
    smooth: float = 1 / 32
    """Standard deviation of the Gaussian over the attributions, as a share of the side; single pixels are noise."""
    full_nats: float = 1.0
    """Sum of the positive attributions, nats, from which the hottest place has full colour; below it is fainter."""


def heat(
    model: torch.nn.Module, pixels_HW: np.ndarray, label: int, pixels: PixelConfig, config: HeatConfig
) -> np.ndarray:
    """Compute how much each place speaks for a class.

    Args:
        model: in evaluation mode; unchanged afterwards.
        pixels_HW: uint8, (side, side), as the model sees the image.
        label: index of the class.
    Returns:
        heat_HW: float32, (side, side), 0 = neutral or against the class, 1 = the most.
    """
    from captum.attr import IntegratedGradients  # imports for seconds: not at a replica's start

    device = next(model.parameters()).device
    blurred_HW = _gaussian(pixels_HW.astype(np.float32), config.blur)
    image_1CHW, blurred_1CHW = (
        torch.from_numpy(to_model_input(image_HW[None], pixels)).to(device)
        for image_HW in (pixels_HW, blurred_HW)
    )
    attributed_1CHW = IntegratedGradients(lambda x_NCHW: model(x_NCHW).log_softmax(1)).attribute(
        image_1CHW,
        blurred_1CHW,
        target=label,
        n_steps=config.steps,
        internal_batch_size=config.steps_at_once,
    )
    smoothed_HW = _gaussian(attributed_1CHW[0].sum(0).detach().float().cpu().numpy(), config.smooth)
    heat_HW = np.maximum(smoothed_HW, 0)
    total, highest = float(heat_HW.sum()), float(heat_HW.max())
    if highest <= 0:
        return np.zeros_like(heat_HW)
    return heat_HW * (min(1.0, total / config.full_nats) / highest)


def _gaussian(image_HW: np.ndarray, share: float) -> np.ndarray:
    """Blur with a deviation that is this share of the side; the border is replicated."""
    deviation = share * image_HW.shape[0]
    return np.asarray(cv2.GaussianBlur(image_HW, (0, 0), deviation, borderType=cv2.BORDER_REPLICATE))
