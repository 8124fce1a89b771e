"""The language model that rewrites explanations: a LitGPT checkpoint, read and streamed.

The explainer's replica owns one `LanguageModel`. It knows text in and text out: neither findings nor HTTP
nor Ray. Importing LitGPT imports Lightning (seconds, hundreds of MiB): import this only in that replica.
"""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from litgpt.config import Config
from litgpt.model import GPT
from litgpt.prompts import PromptStyle
from litgpt.tokenizer import Tokenizer
from safetensors import safe_open

WEIGHTS_NAME = "model.safetensors"
UNFINISHED_CHARACTER = "\ufffd"
LOOKUP_LENGTH = 2
"""Tokens that must be the same for what followed them to be guessed again."""
GUESSES = 8
"""Most tokens guessed ahead in one step."""


class LanguageModelError(ValueError):
    """The checkpoint cannot be loaded, or the prompt cannot be answered; the message says which."""


class LanguageModel:
    """Greedy generation, one text at a time: a second caller waits within its own deadline."""

    def __init__(self, model: GPT, tokenizer: Tokenizer, style: PromptStyle, name: str) -> None:
        self.name = name
        """LitGPT's name of the architecture, e.g. SmolLM2-135M-Instruct."""
        self._model = model
        self._tokenizer = tokenizer
        self._style = style
        self._device = model.lm_head.weight.device
        self._lock = threading.Lock()

    @classmethod
    def load(
        cls,
        directory: Path,
        *,
        threads: int | None = None,
        device: str = "cpu",
        context: int = 768,
    ) -> "LanguageModel":
        """Read a checkpoint.

        Args:
            directory: a LitGPT checkpoint with safetensors weights, see `train.llm.base_weights`.
            threads: of torch, for the whole process; None leaves them. Where other work shares the cores, start
                the process with OMP_WAIT_POLICY=PASSIVE: with spinning threads a text took four times as long.
            device: float32 on "cpu", bfloat16 elsewhere.
            context: most tokens of prompt and answer together; sets the size of the cache.
        Raises:
            LanguageModelError: a file is missing, or the weights do not fit the architecture.
        """
        if threads is not None:
            torch.set_num_threads(threads)
        dtype = torch.float32 if device == "cpu" else torch.bfloat16
        try:
            config = Config.from_checkpoint(directory)
            tokenizer = Tokenizer(directory)
            # safe_open reads one tensor at a time: the float16 file is never in memory as a whole
            with safe_open(directory / WEIGHTS_NAME, framework="pt") as file:
                names = file.keys()
                weights = {name: file.get_tensor(name).to(device=device, dtype=dtype) for name in names}
            weights.setdefault("lm_head.weight", weights["transformer.wte.weight"])  # tied
            with torch.device("meta"):
                model = GPT(config)
            model.load_state_dict(weights, assign=True)
        except (OSError, KeyError, RuntimeError, TypeError) as error:
            raise LanguageModelError(f"{directory} is no LitGPT checkpoint: {error}") from error
        model.cos, model.sin = model.rope_cache(device=torch.device(device))
        model.max_seq_length = min(context, config.block_size)
        model.set_kv_cache(batch_size=1, device=torch.device(device), dtype=dtype)
        model.requires_grad_(False).eval()
        return cls(model, tokenizer, PromptStyle.from_config(config), config.name)

    def warm_up(self) -> None:
        """Touch every weight once, so that the first caller does not pay for it."""
        for _ in self.generate("Hello", max_new_tokens=2, deadline_s=60.0):
            pass

    def generate(self, prompt: str, *, max_new_tokens: int, deadline_s: float) -> Iterator[str]:
        """Stream the most likely answer, piece by piece.

        Ends at the model's own end, at `max_new_tokens`, or at the deadline, whichever is first; a text that
        was cut simply stops.

        Args:
            prompt: the user's words; the checkpoint's chat style is put around it here.
            deadline_s: seconds from this call on, waiting for other callers included.
        Raises:
            LanguageModelError: the prompt leaves no room for `max_new_tokens`.
        """
        ends_at = time.monotonic() + deadline_s
        tokens_T = self._tokenizer.encode(self._style.apply(prompt), device=self._device, bos=True).long()
        if tokens_T.numel() + max_new_tokens > self._model.max_seq_length:
            raise LanguageModelError(
                f"a prompt of {tokens_T.numel()} tokens and {max_new_tokens} new ones exceed the context "
                f"of {self._model.max_seq_length}"
            )
        return self._stream(tokens_T, max_new_tokens, ends_at)

    def _stream(self, tokens_T: torch.Tensor, max_new_tokens: int, ends_at: float) -> Iterator[str]:
        if not self._lock.acquire(timeout=max(0.0, ends_at - time.monotonic())):
            return
        try:
            tokens: list[int] = []
            shown = ""
            for token in self._tokens(tokens_T.tolist(), max_new_tokens, ends_at):
                tokens.append(token)
                text = self._tokenizer.decode(torch.tensor(tokens))
                if not text.endswith(UNFINISHED_CHARACTER) and text != shown:
                    yield text[len(shown) :]
                    shown = text
        finally:
            self._lock.release()

    def _tokens(self, prompt: list[int], max_new_tokens: int, ends_at: float) -> Iterator[int]:
        """Decode greedily, several tokens a step where the answer repeats the prompt.

        A rewritten text mostly repeats its source, so what followed the last words there is guessed and
        checked in one pass: the tokens are those of one-by-one decoding, in about a third of the time.
        Source: prompt lookup decoding, https://github.com/apoorvumang/prompt-lookup-decoding.
        """
        context, fresh, cached = list(prompt), prompt, 0
        ends_with = len(prompt) + max_new_tokens
        while time.monotonic() < ends_at:
            guesses = _guess(context, ends_with - len(context) - 1)
            after = self._greedy([*fresh, *guesses], cached)[len(fresh) - 1 :]
            right = next((n for n, guess in enumerate(guesses) if guess != after[n]), len(guesses))
            cached += len(fresh) + right
            fresh = [after[right]]
            for token in after[: right + 1]:
                if token == self._tokenizer.eos_id:
                    return
                context.append(token)
                yield token
            if len(context) >= ends_with:
                return

    @torch.inference_mode()
    def _greedy(self, tokens: list[int], at: int) -> list[int]:
        """Return the most likely next token after each of `tokens`, which stand at positions `at` and after."""
        end = at + len(tokens)
        tokens_1T = torch.tensor([tokens], device=self._device)
        positions_T = torch.arange(at, end, device=self._device)
        logits_1TV = self._model(tokens_1T, positions_T, input_pos_maxp1=end)
        return logits_1TV[0].argmax(dim=-1).tolist()

    @torch.inference_mode()
    def perplexity(self, text: str) -> float:
        """Compute the perplexity of plain text, without any chat style; it shows whether a conversion is sound."""
        tokens_T = self._tokenizer.encode(text, device=self._device, bos=False).long()
        if tokens_T.numel() > self._model.max_seq_length:
            raise LanguageModelError(f"{tokens_T.numel()} tokens exceed {self._model.max_seq_length}")
        logits_TV = self._model(tokens_T.unsqueeze(0))[0]
        return float(torch.nn.functional.cross_entropy(logits_TV[:-1], tokens_T[1:]).exp())


def _guess(context: list[int], most: int) -> list[int]:
    """Return what followed the last tokens where they occurred before in the context; empty if they did not."""
    last = context[-LOOKUP_LENGTH:]
    for start in range(len(context) - LOOKUP_LENGTH - 1, -1, -1):
        if context[start : start + LOOKUP_LENGTH] == last:
            following = start + LOOKUP_LENGTH
            return context[following : following + min(GUESSES, max(0, most))]
    return []
