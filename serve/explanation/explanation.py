"""From a finding and a language model's words to the text that a patient reads.

The model only rewrites the facts of `serve.explanation.finding`. `explain` passes each sentence on once
`serve.explanation.checker` accepts it, adds a required fact that the model left out in the template's words, and
answers with the template when the model said anything forbidden. Works on any iterator of text, so it knows
neither the model nor Ray nor torch.
"""

import re
from collections.abc import Generator, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from serve.explanation.checker import check, check_sentence, missing
from serve.explanation.finding import Fact, Finding, facts, prompt, template_text
from serve.explanation.normaliser import is_repeated, split_sentences

__all__ = [
    "DISCLAIMER",
    "MAX_NEW_TOKENS",
    "Event",
    "Explanation",
    "Finding",
    "check",
    "disclaimer",
    "explain",
    "facts",
    "prompt",
    "template_explanation",
    "template_text",
]

DISCLAIMER = (
    "This text was written by software, it can be wrong, and it is not medical advice. "
    "Only a physician can make a diagnosis."
)
DRAWN = "It was trained on drawn pictures only and knows nothing about X-rays of people."
TEMPLATE = "template"
"""`Explanation.model` where no language model's words were used."""
MAX_NEW_TOKENS = 112
"""Tokens to ask the model for: the longest facts have about 100."""
MAX_SENTENCES = 7
MAX_COMPLETED = 2
"""With more required facts missing the template answers, and the answer says so."""


def disclaimer(*, synthetic: bool) -> str:
    """Return the disclaimer of every answer, extended if the model was trained on drawings only."""
    return f"{DISCLAIMER} {DRAWN}" if synthetic else DISCLAIMER


@dataclass(frozen=True, kw_only=True)
class Explanation:
    text: str
    model: str
    """The text's author: the language model's name, or `template`."""
    fallback: bool
    """True when the template is the answer because the model gave none that could be shown."""
    problems: tuple[str, ...] = ()
    """The checker's codes for the model's words (`serve.explanation.checker`)."""
    completed: tuple[str, ...] = ()
    """Keys of required facts that the model left out and the template's words supply."""
    grounded: bool = True
    """The facts come from the structured finding, never from a model."""
    disclaimer: str = DISCLAIMER

    def as_dict(self) -> dict[str, Any]:
        values = asdict(self)
        return {**values, "problems": list(self.problems), "completed": list(self.completed)}


@dataclass(frozen=True, kw_only=True)
class Event:
    kind: Literal["sentence", "replace", "done"]
    """`sentence`: one more may be shown; `replace`: drop them, show this; `done`: nothing follows."""
    text: str = ""
    explanation: Explanation | None = None
    """With `done` only."""

    def as_dict(self) -> dict[str, Any]:
        """Return {"event", "text"} or {"event": "done", "explanation"}."""
        if self.explanation is not None:
            return {"event": self.kind, "explanation": self.explanation.as_dict()}
        return {"event": self.kind, "text": self.text}


def template_explanation(finding: Finding, problems: Iterable[str] = ()) -> Explanation:
    """Build the answer without a language model; `problems` says why there is none."""
    return Explanation(
        text=template_text(finding),
        model=TEMPLATE,
        fallback=True,
        problems=tuple(dict.fromkeys(problems)),
        disclaimer=disclaimer(synthetic=finding.synthetic),
    )


def explain(finding: Finding, pieces: Iterator[str], *, model: str) -> Iterator[Event]:
    """Turn the model's stream into verified sentences.

    Args:
        pieces: the model's text, cut anywhere; closed once no more is needed.
        model: its name, for the record.
    """
    shown: list[str] = []
    problems: list[str] = []
    try:
        for sentence in _sentences(pieces):
            if is_repeated(sentence, shown):
                problems.append("repetition")
                break
            against = check_sentence(sentence, finding, previous=shown[-1] if shown else "")
            if against:
                yield from _replace(finding, against)
                return
            shown.append(sentence)
            yield Event(kind="sentence", text=sentence)
            if len(shown) == MAX_SENTENCES or _says_everything(shown, finding):
                break
    finally:
        if isinstance(pieces, Generator):
            pieces.close()
    yield from _conclude(finding, shown, problems, model)


def _conclude(finding: Finding, shown: list[str], problems: list[str], model: str) -> Iterator[Event]:
    lacking = missing(shown, finding)
    completions = [fact for fact in facts(finding) if fact.key in lacking]
    text = " ".join([*shown, *(fact.alone for fact in completions)])
    against = _against_completion(completions) or check(text, finding)
    if against:
        yield from _replace(finding, [*problems, *against])
        return
    for fact in completions:
        yield Event(kind="sentence", text=fact.alone)
    explanation = Explanation(
        text=text,
        model=model,
        fallback=False,
        problems=tuple(problems),
        completed=tuple(fact.key for fact in completions),
        disclaimer=disclaimer(synthetic=finding.synthetic),
    )
    yield Event(kind="done", explanation=explanation)


def _against_completion(completions: list[Fact]) -> list[str]:
    """Return codes if the finding itself, or more than `MAX_COMPLETED` facts, would be the template's words."""
    keys = [fact.key for fact in completions]
    if "finding" in keys or len(keys) > MAX_COMPLETED:
        return [f"missing_{key}" for key in keys]
    return []


def _replace(finding: Finding, problems: list[str]) -> Iterator[Event]:
    explanation = template_explanation(finding, problems)
    yield Event(kind="replace", text=explanation.text)
    yield Event(kind="done", explanation=explanation)


def _says_everything(shown: list[str], finding: Finding) -> bool:
    """Return True once the closing fact was said too: whatever follows is chatter."""
    return not missing(shown, finding) and facts(finding)[-1].sentence in shown


def _sentences(pieces: Iterator[str]) -> Iterator[str]:
    """Yield sentences as soon as they are whole; a last one without its full stop was cut off and is dropped."""
    text = ""
    for piece in pieces:
        text += piece
        *whole, rest = re.split(r"(?<=[.!?])\s+(?=\S)|\n+", text.lstrip())
        yield from (sentence.strip() for sentence in whole if sentence.strip())
        text = rest
    if text.strip().endswith((".", "!", "?")):
        yield from split_sentences(text)
