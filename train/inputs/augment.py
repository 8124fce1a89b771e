"""Random views of training images, seeded per (sample, epoch): the same whichever worker draws them.

One batched affine warp and one affine change of grey values; cheap enough for a CPU core.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from train.config import AugmentConfig

DRAWS = 7  # angle, two shifts, zoom, brightness, contrast, flip


def draws(sample_hashes: Sequence[str], *, seed: int, epoch: int) -> np.ndarray:
    """Draw the uniform numbers in [-1, 1) of each sample's view, from a hash of (seed, epoch, sample).

    Returns:
        draws_BD: float64, (samples, DRAWS).
    """
    key = f"augment:{seed}:{epoch}:".encode()
    raw = b"".join(
        hashlib.blake2b(key + sample_hash.encode(), digest_size=4 * DRAWS).digest()
        for sample_hash in sample_hashes
    )
    return np.frombuffer(raw, dtype="<u4").reshape(-1, DRAWS) / 2.0**31 - 1.0


def augment(images_BCHW: torch.Tensor, draws_BD: np.ndarray, config: AugmentConfig) -> torch.Tensor:
    """Apply each sample's view; pixels from outside the picture repeat the border.

    Args:
        images_BCHW: float32, normalised.
        draws_BD: from `draws`, one row a sample.
    """
    u_DB = torch.from_numpy(draws_BD.T.copy()).to(images_BCHW.device, torch.float32)
    if config.rotation_degrees or config.shift or config.zoom or config.horizontal_flip:
        images_BCHW = _warp(images_BCHW, u_DB, config)
    gain_B = 1 + config.contrast * u_DB[5]
    offset_B = config.brightness * u_DB[4]
    return images_BCHW * gain_B[:, None, None, None] + offset_B[:, None, None, None]


def _warp(images_BCHW: torch.Tensor, u_DB: torch.Tensor, config: AugmentConfig) -> torch.Tensor:
    angle_B = torch.deg2rad(config.rotation_degrees * u_DB[0])
    scale_B = 1 / (1 + config.zoom * u_DB[3])
    mirror_B = torch.where(u_DB[6] < 0, -1.0, 1.0) if config.horizontal_flip else torch.ones_like(angle_B)
    cos_B, sin_B = torch.cos(angle_B) * scale_B, torch.sin(angle_B) * scale_B
    rows = (
        torch.stack((cos_B * mirror_B, -sin_B, 2 * config.shift * u_DB[1]), dim=1),
        torch.stack((sin_B * mirror_B, cos_B, 2 * config.shift * u_DB[2]), dim=1),
    )
    grid_BHW2 = F.affine_grid(torch.stack(rows, dim=1), list(images_BCHW.shape), align_corners=False)
    return F.grid_sample(images_BCHW, grid_BHW2, mode="bilinear", padding_mode="border", align_corners=False)
