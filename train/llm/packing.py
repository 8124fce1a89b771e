"""Rows of several samples that do not attend to each other, and the tensors of a microbatch of rows.

Attention is block-diagonal (a token sees the earlier tokens of its own sample only) and positions begin at 0 in each
sample, so the logits are those of the samples alone; a test holds that. Which samples share a row is a pure function
of the samples.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from train.llm.tokenise import Sample

NOT_LEARNED = -100
"""Target of tokens outside of answers."""


@dataclass(frozen=True, kw_only=True)
class Row:
    samples: tuple[Sample, ...]

    @property
    def length(self) -> int:
        return sum(len(sample.tokens) for sample in self.samples)

    @property
    def learned(self) -> int:
        """Tokens that are learned."""
        return sum(len(sample.tokens) - sample.answer_from for sample in self.samples)

    @property
    def hash(self) -> str:
        return hashlib.blake2b(
            " ".join(sample.hash for sample in self.samples).encode(), digest_size=16
        ).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Batch:
    tokens_BT: torch.Tensor
    positions_BT: torch.Tensor
    """Within each sample."""
    targets_BT: torch.Tensor
    """The next token if it belongs to an answer, else `NOT_LEARNED`."""
    mask_B1TT: torch.Tensor | None
    """Block-diagonal causal mask; None if each row is one sample, for which plain causal attention does."""

    def to(self, device: torch.device) -> "Batch":
        mask = None if self.mask_B1TT is None else self.mask_B1TT.to(device)
        moved = (tensor.to(device) for tensor in (self.tokens_BT, self.positions_BT, self.targets_BT))
        tokens_BT, positions_BT, targets_BT = moved
        return Batch(tokens_BT=tokens_BT, positions_BT=positions_BT, targets_BT=targets_BT, mask_B1TT=mask)


def rows(samples: Sequence[Sample], *, longest: int, packing: bool) -> list[Row]:
    """Fill rows of at most `longest` tokens, the longest samples first, each into the first row with room for it."""
    if not packing:
        return [Row(samples=(sample,)) for sample in samples]
    filled: list[list[Sample]] = []
    room: list[int] = []
    for sample in sorted(samples, key=lambda sample: (-len(sample.tokens), sample.hash)):
        size = len(sample.tokens)
        place = next((nth for nth, left in enumerate(room) if left >= size), None)
        if place is None:
            filled.append([sample])
            room.append(longest - size)
        else:
            filled[place].append(sample)
            room[place] -= size
    return [Row(samples=tuple(sample)) for sample in filled]


def batch(chosen: Sequence[Row]) -> Batch:
    """Build the tensors of some rows, padded to the longest of them."""
    width = max(row.length for row in chosen)
    tokens_BT = torch.zeros(len(chosen), width, dtype=torch.long)
    positions_BT = torch.zeros_like(tokens_BT)
    targets_BT = torch.full_like(tokens_BT, NOT_LEARNED)
    whose_BT = torch.full_like(tokens_BT, -1)
    for nth, row in enumerate(chosen):
        at = 0
        for which, sample in enumerate(row.samples):
            end = at + len(sample.tokens)
            tokens_T = torch.tensor(sample.tokens)
            tokens_BT[nth, at:end] = tokens_T
            positions_BT[nth, at:end] = torch.arange(len(sample.tokens))
            targets_BT[nth, at + sample.answer_from - 1 : end - 1] = tokens_T[sample.answer_from :]
            whose_BT[nth, at:end] = which
            at = end
    mask = _block_diagonal(whose_BT) if any(len(row.samples) > 1 for row in chosen) else None
    return Batch(tokens_BT=tokens_BT, positions_BT=positions_BT, targets_BT=targets_BT, mask_B1TT=mask)


def _block_diagonal(whose_BT: torch.Tensor) -> torch.Tensor:
    same_BTT = whose_BT[:, :, None] == whose_BT[:, None, :]
    return same_BTT.tril()[:, None]
