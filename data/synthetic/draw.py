"""Draw X-ray-like pictures of all ten classes: the anatomy here, the disease signs in `synthetic_signs`.

Brightness is attenuation: 0 = air, about 1 = dense bone.
These are drawings for tests and demonstrations; nothing medical can be concluded from them.
"""

import math
from dataclasses import dataclass

import numpy as np

from data.synthetic.findings import SIGNS, Lungs, chest_sign
from data.synthetic.shapes import Plane, cloud, dome, pose, step

DRAWN_LABELS = frozenset({*SIGNS, "bone_fracture", "bone_normal"})
"""What can be drawn; a site's taxonomy may have other classes."""


@dataclass(frozen=True, kw_only=True)
class Patient:
    """What all images of one invented patient share."""

    label: str
    sex: str
    age: int
    build: np.random.SeedSequence
    """Proportions are drawn from it, the same for each of the patient's images."""


def chest(
    rng: np.random.Generator, shape: tuple[int, int], patient: Patient, view: str, strength: float
) -> np.ndarray:
    """Draw a frontal chest film with the patient's sign.

    Args:
        view: "PA" or "AP"; AP enlarges the heart and flattens the inspiration.
        strength: multiplies the density of the sign, about 0..1.5.
    """
    build = np.random.default_rng(patient.build)
    plane = pose(rng, shape, turn_deg=4, shift=0.035)
    heart_HW = _heart(build, plane, view)
    lungs = _lungs(build, rng, plane, view, seen_HW=1 - 0.85 * heart_HW)
    u_HW, v_HW = plane.u_HW, plane.v_HW
    neck_HW = 0.3 + 0.68 * step(v_HW + build.uniform(0.72, 0.86), 0.4)
    body_HW = step(neck_HW * build.uniform(0.95, 1.12) - np.abs(u_HW), 0.12)
    air_HW = lungs.both_HW
    image_HW = body_HW * (0.62 + 0.1 * v_HW) - air_HW * build.uniform(0.36, 0.46)
    image_HW += 0.16 * heart_HW + 0.12 * step(0.15 - np.abs(u_HW), 0.16) * body_HW
    image_HW += _spine(build, plane) * body_HW + _ribs(build, plane) + _clavicles(build, plane)
    if patient.sex == "F":
        image_HW += _breasts(build, plane)
    vessels_HW = np.abs(cloud(rng, shape, 34)) * step(0.55 - np.abs(np.abs(u_HW) - 0.25), 0.6)
    image_HW += air_HW * (0.025 * vessels_HW + 0.018 * cloud(rng, shape, 7) + 0.012 * cloud(rng, shape, 16))
    image_HW += chest_sign(patient.label, rng, plane, lungs, strength)
    if rng.random() < 0.15:
        image_HW += _wire(rng, plane)
    return image_HW


def _lungs(
    build: np.random.Generator, rng: np.random.Generator, plane: Plane, view: str, *, seen_HW: np.ndarray
) -> Lungs:
    width, height = build.uniform(0.29, 0.37), build.uniform(0.56, 0.68)
    gap, top = build.uniform(0.4, 0.46), build.uniform(-0.12, 0.0)
    base = top + height * (rng.uniform(0.62, 0.85) - (0.12 if view == "AP" else 0.0))
    sides = []
    for side in (-1.0, 1.0):
        across_HW = (plane.u_HW * side - gap) / width
        along_HW = (plane.v_HW - top) / height
        narrow_HW = 1 + 0.5 * np.clip(-along_HW, 0, 1)
        round_HW = 1 - (across_HW * narrow_HW) ** 2 - np.square(along_HW) * np.sqrt(np.abs(along_HW))
        dome_HW = base + (0.05 if side > 0 else 0.0) + 0.12 * np.square(across_HW) - plane.v_HW
        sides.append(step(round_HW, 0.3) * step(dome_HW, 0.07) * seen_HW)
    return Lungs(
        right_HW=sides[0], left_HW=sides[1], gap=gap, width=width, top=top - height, base=base, middle=top
    )


def _heart(build: np.random.Generator, plane: Plane, view: str) -> np.ndarray:
    size = build.uniform(0.85, 1.15) * (1.15 if view == "AP" else 1.0)
    tilted_HW = plane.u_HW - 0.35 * (plane.v_HW - 0.3)
    return step(
        1 - ((tilted_HW - 0.1) / (0.29 * size)) ** 2 - ((plane.v_HW - 0.28) / (0.34 * size)) ** 2, 0.35
    )


def _spine(build: np.random.Generator, plane: Plane) -> np.ndarray:
    discs_HW = np.cos(plane.v_HW * build.uniform(28, 36))
    return step(0.085 - np.abs(plane.u_HW), 0.05) * (0.08 + 0.03 * discs_HW)


def _ribs(build: np.random.Generator, plane: Plane) -> np.ndarray:
    u_HW, v_HW = plane.u_HW, plane.v_HW
    cage_HW = step(1 - (u_HW / 0.88) ** 2 - ((v_HW + 0.02) / 0.85) ** 2, 0.3) * step(
        np.abs(u_HW) - 0.07, 0.06
    )
    pitch, contrast = build.uniform(20, 26), build.uniform(0.05, 0.1)
    back_HW = np.cos(pitch * (v_HW + 0.45 * u_HW * u_HW - 0.25 * np.abs(u_HW)) + build.uniform(0, 6))
    front_HW = np.cos(pitch * (v_HW - 0.55 * np.abs(u_HW)) * 0.9 + build.uniform(0, 6))
    return contrast * cage_HW * (step(back_HW - 0.55, 0.5) + 0.5 * step(front_HW - 0.6, 0.5))


def _clavicles(build: np.random.Generator, plane: Plane) -> np.ndarray:
    across_HW = np.abs(plane.u_HW)
    line_HW = plane.v_HW + build.uniform(0.55, 0.66) + 0.22 * (across_HW - 0.1) - 0.2 * across_HW * across_HW
    return (
        0.13
        * step(0.035 - np.abs(line_HW), 0.03)
        * step(0.75 - across_HW, 0.1)
        * step(across_HW - 0.08, 0.05)
    )


def _breasts(build: np.random.Generator, plane: Plane) -> np.ndarray:
    size = build.uniform(0.24, 0.36)
    across_HW = (np.abs(plane.u_HW) - 0.45) / size
    return build.uniform(0.05, 0.12) * step(1 - across_HW**2 - ((plane.v_HW - 0.38) / size) ** 2, 0.4)


def _wire(rng: np.random.Generator, plane: Plane) -> np.ndarray:
    """Draw a catheter or cable, bright and thin, which goes with any class."""
    curve_HW = plane.u_HW - rng.uniform(-0.5, 0.5) - rng.uniform(-0.4, 0.4) * np.sin(plane.v_HW * 2.5)
    return (
        rng.uniform(0.15, 0.3)
        * step(0.012 - np.abs(curve_HW), 0.015)
        * step(rng.uniform(-0.2, 0.8) - plane.v_HW, 0.05)
    )


def limb(rng: np.random.Generator, shape: tuple[int, int], patient: Patient, strength: float) -> np.ndarray:
    """Draw one or two long bones with a joint, in soft tissue; broken and swollen when the label says so.

    Args:
        strength: multiplies the gap and the displacement of a fracture, about 0..1.5.
    """
    build = np.random.default_rng(patient.build)
    plane = pose(rng, shape, turn_deg=14, shift=0.07)
    half = build.uniform(0.11, 0.16)
    centres = [0.0] if build.random() < 0.4 else [-half * 1.45, half * 1.45]
    widths = (
        [half * 1.25]
        if len(centres) == 1
        else [half * build.uniform(0.8, 1.05), half * build.uniform(0.6, 0.9)]
    )
    joint = build.uniform(0.55, 0.95) * (1 if build.random() < 0.5 else -1)
    tissue_HW = (
        build.uniform(0.4, 0.55) + 0.08 * np.cos(plane.v_HW * 2 + build.uniform(0, 6)) - np.abs(plane.u_HW)
    )
    image_HW = step(tissue_HW, 0.14) * (0.26 + 0.03 * cloud(rng, shape, 6))
    density = build.uniform(0.36, 0.5) * (1 - 0.25 * max(0, patient.age - 50) / 40)
    place = math.copysign(0.3, -joint) + rng.uniform(-0.3, 0.3)
    for centre, width in zip(centres, widths, strict=True):
        bone_plane, gap_HW = plane, np.ones_like(plane.u_HW)
        if patient.label == "bone_fracture":
            bone_plane, gap_HW = _break(rng, plane, centre, width, place, strength)
            swelling_HW = dome(plane, (centre, place), (rng.uniform(0.3, 0.45), rng.uniform(0.3, 0.45)))
            image_HW += strength * rng.uniform(0.05, 0.1) * swelling_HW
        image_HW += density * gap_HW * _bone(rng, build, bone_plane, centre, width, joint)
    return image_HW


def _bone(
    rng: np.random.Generator,
    build: np.random.Generator,
    plane: Plane,
    centre: float,
    width: float,
    joint: float,
) -> np.ndarray:
    """Draw a shaft with bright cortex and spongy inside, flaring towards the joint, and what lies beyond it."""
    along_HW = (plane.v_HW - joint) * math.copysign(1.0, -joint)
    flare_HW = 1 + 0.5 * np.exp(-np.square(along_HW) * 25)
    bow = build.uniform(-0.08, 0.08)
    across_HW = np.abs(plane.u_HW - centre - bow * (1 - np.square(plane.v_HW))) / (width * flare_HW)
    shaft_HW = step(1 - across_HW, 0.16)
    cortex_HW = shaft_HW * step(across_HW - 0.62, 0.25)
    sponge_HW = 1 + 0.06 * cloud(rng, plane.u_HW.shape, 40)
    bone_HW = (0.55 * shaft_HW + 0.5 * cortex_HW) * sponge_HW
    return bone_HW * (1 - 0.4 * step(0.03 - np.abs(along_HW + 0.1 * across_HW * across_HW), 0.03))


def _break(
    rng: np.random.Generator, plane: Plane, centre: float, width: float, place: float, strength: float
) -> tuple[Plane, np.ndarray]:
    """Move the part of a bone beyond a jagged line at height `place`, and leave a dark gap along that line."""
    across_HW = plane.u_HW - centre
    jag_HW = 0.02 * np.sin(across_HW * rng.uniform(40, 70) + rng.uniform(0, 6))
    line_HW = plane.v_HW - place - rng.uniform(-0.8, 0.8) * across_HW + jag_HW
    beyond_HW = step(line_HW, 0.01)
    sign = 1 if rng.random() < 0.5 else -1
    offset = strength * sign * rng.uniform(0.5, 0.9) * width
    tilt = strength * rng.uniform(-0.16, 0.16)
    moved_HW = plane.u_HW + beyond_HW * (offset + tilt * line_HW)
    gap = strength * rng.uniform(0.035, 0.06)
    gap_HW = 1 - min(1.0, 0.95 * strength) * step(gap - np.abs(line_HW), 0.02)
    return Plane(moved_HW, plane.v_HW), gap_HW
