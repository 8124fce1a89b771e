"""The lung mask of a chest film: a fixed shape in the middle of the canonical square.

There is no segmentation, and a dataset version keeps no masks, not even of drawn images. The shape fits frontal films
as a whole: generous for masking the lungs out, and two ovals for adding a sign.
"""

import numpy as np

from data.synthetic.findings import Lungs
from data.synthetic.shapes import Plane, step

TOP, BOTTOM, LEFT, RIGHT = 0.10, 0.86, 0.08, 0.92
"""Shares of the side: what lies between is lungs, heart and mediastinum of nearly every frontal film."""
GAP, WIDTH, APEX, MIDDLE, BASE = 0.4, 0.26, -0.6, -0.1, 0.38
"""Of the two ovals, where the picture reaches from -1 to 1: distance of their axes from the middle, half their
width, and heights. Smaller than lungs are, so that what is put into them is on lung in nearly every film."""
BORDER = 0.12
"""Width of the frame that counts as the border, as a share of the side."""


def chest_box(side: int) -> np.ndarray:
    """Return inside_HW, bool: everything between apex and diaphragm, from one chest wall to the other."""
    inside_HW = np.zeros((side, side), bool)
    inside_HW[round(TOP * side) : round(BOTTOM * side), round(LEFT * side) : round(RIGHT * side)] = True
    return inside_HW


def inner_box(side: int) -> np.ndarray:
    """Return inside_HW, bool: everything but a frame of `BORDER` of the side."""
    width = round(BORDER * side)
    inside_HW = np.zeros((side, side), bool)
    inside_HW[width : side - width, width : side - width] = True
    return inside_HW


def plane(side: int) -> Plane:
    """Return the picture's coordinates, as the drawn signs use them: u to the right, v down, -1..1."""
    axis_S = (np.arange(side, dtype=np.float32) + 0.5) / side * 2 - 1
    return Plane(np.broadcast_to(axis_S, (side, side)), np.broadcast_to(axis_S[:, None], (side, side)))


def two_lungs(side: int) -> Lungs:
    """Return the two ovals as the drawn signs take them."""
    frame, height = plane(side), MIDDLE - APEX
    ovals = []
    for patient_side in (-1.0, 1.0):
        across_HW = (frame.u_HW * patient_side - GAP) / WIDTH
        along_HW = (frame.v_HW - MIDDLE) / height
        ovals.append(step(1 - across_HW**2 - along_HW**2, 0.2))
    return Lungs(
        right_HW=ovals[0], left_HW=ovals[1], gap=GAP, width=WIDTH, top=APEX, middle=MIDDLE, base=BASE
    )
