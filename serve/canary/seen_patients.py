"""Deduplicates patients, so that each counts once however many requests they send.

Requests of one patient are no independent witnesses. Patients are kept as 32-bit hashes of their pseudonyms, and
forgotten only after thousands of others, so that the memory stays small: two generations, the young one becomes the
old one when it is full. Two patients with one hash count as one, which is harmless: arms do not depend on it.
"""

import base64
import hashlib
from typing import Any

import numpy as np

CAPACITY = 8192
"""A patient is forgotten after this many others at least."""
NO_PATIENT = 0
"""The key of a request without patient: each is a patient of its own."""


def key_of(name: str | None) -> int:
    """Return 32 bits of BLAKE2b; never 0 for a name."""
    if name is None:
        return NO_PATIENT
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest(), "big") or 1


class SeenPatients:
    """The patients seen so far, each with the last step in which it was seen."""

    def __init__(self) -> None:
        self.young: dict[int, int] = {}
        self.old: dict[int, int] = {}

    def mark(self, keys_N: np.ndarray, step: int = 1) -> np.ndarray:
        """Mark patients as seen, in this order.

        Args:
            step: not 0; the caller may tell kinds of steps apart by the sign.
        Returns:
            the step in which each was seen before, 0 for never.
        """
        before_N = np.zeros(len(keys_N), int)
        young, old = self.young, self.old
        for nth, key in enumerate(keys_N.tolist()):
            if key == NO_PATIENT:
                continue
            before_N[nth] = young.get(key) or old.get(key, 0)
            young[key] = step
        return before_N

    def age(self) -> None:
        """Forget the old generation when the young one is full; called when a minute ends."""
        if len(self.young) >= CAPACITY:
            self.old, self.young = self.young, {}

    def as_dict(self) -> dict[str, Any]:
        return {"young": _packed(self.young), "old": _packed(self.old)}

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> "SeenPatients":
        patients = cls()
        patients.young, patients.old = _unpacked(stored["young"]), _unpacked(stored["old"])
        return patients


def _packed(steps_by_key: dict[int, int]) -> list[str]:
    """Keys in order, and steps, as base64 of little-endian numbers of 32 and 16 bits."""
    keys = sorted(steps_by_key)
    columns = np.array(keys, dtype="<u4"), np.array([steps_by_key[key] for key in keys], dtype="<i2")
    return [base64.b64encode(column.tobytes()).decode() for column in columns]


def _unpacked(stored: list[str]) -> dict[int, int]:
    keys, steps = (base64.b64decode(column) for column in stored)
    return dict(zip(np.frombuffer(keys, "<u4").tolist(), np.frombuffer(steps, "<i2").tolist(), strict=True))
