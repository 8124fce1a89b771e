"""The signs that define the eight chest classes, each as density added to a drawn chest film.

Place, size, number and density vary from image to image within what defines the class, so that a sign is
recognised by its shape and its setting and not by a pixel. Simplified from what radiology textbooks name.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from data.synthetic.shapes import Plane, cloud, dome, step


@dataclass(frozen=True, kw_only=True)
class Lungs:
    """Where air is seen, 0..1; sides are the patient's, so `right_HW` is on the image's left."""

    right_HW: np.ndarray
    left_HW: np.ndarray
    gap: float
    """Distance of a lung's axis from the middle line."""
    width: float
    """Half the width of a lung."""
    top: float
    middle: float
    base: float
    """Heights of apex, middle and diaphragm in the body's frame."""

    @cached_property
    def both_HW(self) -> np.ndarray:
        return np.maximum(self.right_HW, self.left_HW)

    def side(self, rng: np.random.Generator) -> tuple[float, np.ndarray]:
        """Choose one of the two by chance: the sign of u there, and its mask."""
        return (1.0, self.left_HW) if rng.random() < 0.5 else (-1.0, self.right_HW)


Sign = Callable[[np.random.Generator, Plane, Lungs], np.ndarray]


def chest_sign(
    label: str, rng: np.random.Generator, plane: Plane, lungs: Lungs, strength: float
) -> np.ndarray | float:
    """Draw what the class adds to the picture; 0 for `normal`."""
    sign = SIGNS[label]
    return 0.0 if sign is None else np.float32(1.4 * strength) * sign(rng, plane, lungs)


def _within(rng: np.random.Generator, lungs: Lungs, low: float, high: float) -> tuple[float, float]:
    """Choose a place in one lung, between two heights given as shares of apex (0) to base (1)."""
    side = 1.0 if rng.random() < 0.5 else -1.0
    return (
        side * (lungs.gap + rng.uniform(-0.5, 0.5) * lungs.width),
        lungs.top + rng.uniform(low, high) * (lungs.base - lungs.top),
    )


def _bacterial(rng: np.random.Generator, plane: Plane, lungs: Lungs) -> np.ndarray:
    """Draw a lobar consolidation: dense, on one side, ending at a fissure as at a ruler."""
    side, lung_HW = lungs.side(rng)
    tilt = rng.uniform(-0.5, 0.5)
    height = lungs.top + (lungs.base - lungs.top) * rng.uniform(0.4, 0.62)
    line_HW = plane.v_HW - height - tilt * (side * plane.u_HW - lungs.gap)
    upper = rng.random() < 0.5
    thick = rng.uniform(0.3, 0.5)
    lobe_HW = step(-line_HW if upper else line_HW, 0.03) * step(thick - np.abs(line_HW), 0.25)
    bronchi_HW = np.abs(cloud(rng, plane.u_HW.shape, 22)) < 0.12
    return rng.uniform(0.26, 0.4) * lobe_HW * lung_HW * (1 - 0.3 * bronchi_HW)


def _viral(rng: np.random.Generator, plane: Plane, lungs: Lungs) -> np.ndarray:
    """Draw an interstitial pattern: a fine net of lines over both lungs."""
    net_HW = step(0.28 - np.abs(cloud(rng, plane.u_HW.shape, int(rng.integers(20, 28)))), 0.25)
    weight_HW = step(rng.uniform(0.3, 0.45) - np.abs(np.abs(plane.u_HW) - rng.uniform(0.2, 0.4)), 0.5)
    return rng.uniform(0.16, 0.26) * lungs.both_HW * weight_HW * (0.3 + net_HW)


def _covid19(rng: np.random.Generator, plane: Plane, lungs: Lungs) -> np.ndarray:
    """Draw ground glass: several hazy patches, on both sides, at the rim and low."""
    haze_HW = np.zeros_like(plane.u_HW)
    for number in range(int(rng.integers(4, 8))):
        side = 1.0 if number % 2 else -1.0
        at = (
            side * (lungs.gap + rng.uniform(0.35, 0.85) * lungs.width),
            lungs.top + rng.uniform(0.45, 0.95) * (lungs.base - lungs.top),
        )
        haze_HW += dome(plane, at, (rng.uniform(0.12, 0.2), rng.uniform(0.12, 0.24)))
    ground_HW = 1 + 0.25 * cloud(rng, plane.u_HW.shape, 40)
    return rng.uniform(0.2, 0.32) * np.clip(haze_HW, 0, 1) * lungs.both_HW * ground_HW


def _tuberculosis(rng: np.random.Generator, plane: Plane, lungs: Lungs) -> np.ndarray:
    """Draw cavities: rings with an empty middle, in an upper lobe, in a little haze."""
    density_HW = np.zeros_like(plane.u_HW)
    for _ in range(int(rng.integers(1, 4))):
        x, y = _within(rng, lungs, 0.22, 0.42)
        radius = rng.uniform(0.08, 0.14)
        distance_HW = np.sqrt((plane.u_HW - x) ** 2 + ((plane.v_HW - y) * rng.uniform(0.85, 1.15)) ** 2)
        density_HW += step(rng.uniform(0.016, 0.026) - np.abs(distance_HW - radius), 0.02)
        density_HW += 0.4 * dome(plane, (x, y), (2.2 * radius, 2.2 * radius))
        density_HW -= 0.35 * step(0.8 * radius - distance_HW, 0.03)
    return rng.uniform(0.27, 0.42) * density_HW * lungs.both_HW


def _lung_opacity(rng: np.random.Generator, plane: Plane, lungs: Lungs) -> np.ndarray:
    """Draw one faint round shadow, anywhere in a lung."""
    at = _within(rng, lungs, 0.3, 0.75)
    size = rng.uniform(0.2, 0.3)
    return rng.uniform(0.26, 0.4) * dome(plane, at, (size, size * rng.uniform(0.85, 1.2))) * lungs.both_HW


def _fungal(rng: np.random.Generator, plane: Plane, lungs: Lungs) -> np.ndarray:
    """Draw several small nodules, each in a halo."""
    density_HW = np.zeros_like(plane.u_HW)
    for _ in range(int(rng.integers(6, 12))):
        at = _within(rng, lungs, 0.2, 0.9)
        core, halo = rng.uniform(0.035, 0.055), rng.uniform(0.08, 0.12)
        density_HW += 0.75 * step(dome(plane, at, (core, core)) - 0.4, 0.6)
        density_HW += 0.35 * dome(plane, at, (halo, halo))
    return rng.uniform(0.3, 0.45) * density_HW * lungs.both_HW


def _other_lung(rng: np.random.Generator, plane: Plane, lungs: Lungs) -> np.ndarray:
    """Draw a pleural effusion: fluid over one diaphragm, rising to the outer wall in a meniscus."""
    side, lung_HW = lungs.side(rng)
    outwards_HW = (side * plane.u_HW - lungs.gap) / lungs.width
    level = lungs.base - rng.uniform(0.18, 0.36)
    surface_HW = plane.v_HW - level + rng.uniform(0.08, 0.16) * np.clip(outwards_HW, -1, 1.2) ** 3
    return rng.uniform(0.25, 0.36) * step(surface_HW, 0.05) * lung_HW


SIGNS: dict[str, Sign | None] = {
    "normal": None,
    "bacterial_pneumonia": _bacterial,
    "viral_pneumonia": _viral,
    "covid19": _covid19,
    "tuberculosis": _tuberculosis,
    "lung_opacity": _lung_opacity,
    "fungal_pneumonia": _fungal,
    "other_lung": _other_lung,
}
