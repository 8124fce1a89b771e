"""Mixup (arXiv:1710.09412) as a pure function of (seed, epoch, sample): the partner of each image, and its share.

The partner is any training image, so it depends neither on the batch nor on the number of workers, and each image is
a partner exactly once an epoch.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Blend:
    """One entry a training image; without mixup every image is its own partner."""

    partners_N: np.ndarray
    """int64, index of the other image."""
    shares_N: np.ndarray
    """float64 in [0.5, 1], of the image itself: the partner gets the rest."""

    @classmethod
    def none(cls, images: int) -> "Blend":
        return cls(partners_N=np.arange(images), shares_N=np.ones(images))

    @property
    def blends(self) -> bool:
        return bool((self.shares_N < 1).any())


def blend(sample_hashes: Sequence[str], *, alpha: float, seed: int, epoch: int) -> Blend:
    """Draw partners and shares of one epoch; alpha 0 blends nothing."""
    if not alpha:
        return Blend.none(len(sample_hashes))
    from scipy.stats import beta  # 0.9 s of imports, spared where nothing is blended

    first, second = (_order(sample_hashes, f"mixup-{kind}:{seed}:{epoch}:") for kind in ("image", "partner"))
    partners_N = np.empty(len(sample_hashes), np.int64)
    partners_N[first] = second
    key = f"mixup-share:{seed}:{epoch}:".encode()
    raw = b"".join(
        hashlib.blake2b(key + sample_hash.encode(), digest_size=4).digest() for sample_hash in sample_hashes
    )
    uniform_N = (np.frombuffer(raw, dtype="<u4") + 0.5) / 2.0**32
    shares_N = beta.ppf(uniform_N, alpha, alpha)
    return Blend(partners_N=partners_N, shares_N=np.maximum(shares_N, 1 - shares_N))


def _order(sample_hashes: Sequence[str], prefix: str) -> list[int]:
    key = prefix.encode()
    ranks = [
        hashlib.blake2b(key + sample_hash.encode(), digest_size=16).digest() for sample_hash in sample_hashes
    ]
    return sorted(range(len(ranks)), key=lambda i: (ranks[i], sample_hashes[i], i))
