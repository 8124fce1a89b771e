"""A prompt and its answer as tokens, of which only the answer's are learned.

The prompt gets the checkpoint's chat style and the same encoding as in `serve.explanation.llm`, so that training
and service ask the same; a test compares the two.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from litgpt.config import Config
from litgpt.prompts import PromptStyle
from litgpt.tokenizer import Tokenizer

Pair = tuple[str, str]
"""Prompt without any chat style, and answer."""


class LlmDataError(ValueError):
    """The pairs cannot be learned; the message names the pair, never its content."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    tokens: tuple[int, ...]
    """Prompt, answer, end."""
    answer_from: int
    """Index of the answer's first token."""
    hash: str
    """Of the tokens: the order of an epoch is made of it."""


class Encoder:
    """Encodes samples for one checkpoint."""

    def __init__(self, directory: Path) -> None:
        self._tokenizer = Tokenizer(directory)
        self._style = PromptStyle.from_config(Config.from_checkpoint(directory))

    def prompt(self, text: str) -> list[int]:
        """Return the tokens before the answer."""
        return self._tokenizer.encode(self._style.apply(text), bos=True).tolist()

    def sample(self, pair: Pair) -> Sample:
        prompt = self.prompt(pair[0])
        answer = self._tokenizer.encode(pair[1], bos=False, eos=True).tolist()
        tokens = (*prompt, *answer)
        digest = hashlib.blake2b(repr((len(prompt), tokens)).encode(), digest_size=16).hexdigest()
        return Sample(tokens=tokens, answer_from=len(prompt), hash=digest)

    def samples(self, pairs: Sequence[Pair], longest: int) -> list[Sample]:
        """Encode each pair once, in the order of their hashes.

        Raises:
            LlmDataError: there is none, or one is longer than `longest` tokens.
        """
        by_hash = {sample.hash: sample for sample in map(self.sample, pairs)}
        if not by_hash:
            raise LlmDataError("there is no pair to learn from")
        most = max(len(sample.tokens) for sample in by_hash.values())
        if most > longest:
            raise LlmDataError(
                f"the longest pair has {most} tokens, max_seq_length is {longest}: take {most} or more"
            )
        return [by_hash[digest] for digest in sorted(by_hash)]
