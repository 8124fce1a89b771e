"""A prompt and its answer as tokens, of which only the answer's are learned.

The prompt gets the checkpoint's chat style and the same encoding as in `serve.llm`, so that the model is asked in
training what it is asked in service; a test holds the two together.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from litgpt.config import Config
from litgpt.prompts import PromptStyle
from litgpt.tokenizer import Tokenizer

Pair = tuple[str, str]
"""What the model is asked, without any chat style, and what it is to answer."""


class LlmDataError(ValueError):
    """The pairs cannot be learned; the message says which one, never what it says."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    tokens: tuple[int, ...]
    """Prompt, answer, end."""
    answer_from: int
    """Index of the answer's first token."""
    hash: str
    """Of the tokens: what the order of an epoch is made of."""


class Encoder:
    """Makes samples for one checkpoint."""

    def __init__(self, directory: Path) -> None:
        self._tokenizer = Tokenizer(directory)
        self._style = PromptStyle.from_config(Config.from_checkpoint(directory))

    def prompt(self, text: str) -> list[int]:
        """The tokens before the answer."""
        tokens: list[int] = self._tokenizer.encode(self._style.apply(text), bos=True).tolist()
        return tokens

    def sample(self, pair: Pair) -> Sample:
        asked = self.prompt(pair[0])
        told = self._tokenizer.encode(pair[1], bos=False, eos=True).tolist()
        tokens = (*asked, *told)
        digest = hashlib.blake2b(repr((len(asked), tokens)).encode(), digest_size=16).hexdigest()
        return Sample(tokens=tokens, answer_from=len(asked), hash=digest)

    def samples(self, pairs: Sequence[Pair], longest: int) -> list[Sample]:
        """Each pair once, in the order of their hashes.

        Raises:
            LlmDataError: there is none, or one is longer than `longest` tokens.
        """
        found = {one.hash: one for one in map(self.sample, pairs)}
        if not found:
            raise LlmDataError("there is no pair to learn from")
        most = max(len(one.tokens) for one in found.values())
        if most > longest:
            raise LlmDataError(
                f"the longest pair has {most} tokens, max_seq_length is {longest}: take {most} or more"
            )
        return [found[digest] for digest in sorted(found)]
