"""The shapes that synthetic X-rays are made of: soft-edged areas, bumps, smooth noise and a view of the body.

Everything is float32 over two coordinate planes, so that pose, size and proportions vary freely and no
pixel has a fixed meaning.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Plane:
    """Where each pixel lies in the body's own frame: u to the image's right, v downwards, about -1..1."""

    u_HW: np.ndarray
    v_HW: np.ndarray


def step(distance_HW: np.ndarray, softness: float) -> np.ndarray:
    """Return 0 outside and 1 inside, with a border `softness` wide; `distance_HW` is positive inside."""
    t_HW = distance_HW * np.float32(1 / softness)
    t_HW += np.float32(0.5)
    np.clip(t_HW, 0, 1, out=t_HW)
    slope_HW = np.float32(3) - 2 * t_HW
    t_HW *= t_HW
    t_HW *= slope_HW
    return t_HW


def cloud(rng: np.random.Generator, shape: tuple[int, int], cells: int) -> np.ndarray:
    """Draw smooth noise, mean 0 and deviation about 1, with `cells` bumps along the shorter side."""
    height, width = shape
    rows, columns = (max(2, round(cells * side / min(shape))) for side in shape)
    coarse = Image.fromarray(rng.standard_normal((rows, columns), np.float32))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)) * np.float32(1.3)


def pose(rng: np.random.Generator, shape: tuple[int, int], *, turn_deg: float, shift: float) -> Plane:
    """Draw a rotated, shifted, scaled and slightly warped view of the body's frame."""
    height, width = shape
    longer = max(shape) / 2
    y_H1 = (np.arange(height, dtype=np.float32)[:, None] - height / 2) / longer + rng.uniform(-shift, shift)
    x_W = (np.arange(width, dtype=np.float32) - width / 2) / longer + rng.uniform(-shift, shift)
    angle = np.deg2rad(rng.uniform(-turn_deg, turn_deg))
    zoom, stretch = rng.uniform(0.95, 1.1), rng.uniform(0.96, 1.05)
    cosine, sine = float(np.cos(angle) * zoom), float(np.sin(angle) * zoom)
    warp_HW = cloud(rng, shape, 3) * np.float32(0.02)
    u_HW = stretch * cosine * x_W - stretch * sine * y_H1 + warp_HW
    return Plane(u_HW, sine * x_W + cosine * y_H1 + warp_HW)


def dome(plane: Plane, at: tuple[float, float], size: tuple[float, float]) -> np.ndarray:
    """Draw a soft round bump of height 1."""
    across_HW, along_HW = (plane.u_HW - at[0]) / size[0], (plane.v_HW - at[1]) / size[1]
    return np.square(np.clip(1 - across_HW * across_HW - along_HW * along_HW, 0, 1))
