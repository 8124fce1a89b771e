"""Normalises a sentence for `serve.explanation.checker`: class names and the number become single words.

"The software saw signs of tuberculosis" becomes "the software saw signs of qlabel" when that is the label, and "...
qforeign" when the finding has nothing to do with it. Knows neither Ray nor torch.
"""

import re
from collections.abc import Iterable, Iterator
from functools import cache

from data.taxonomy import Class, taxonomy
from serve.explanation.finding import NAMED_ALTERNATIVES, Finding

LABEL = "qlabel"
"""The finding's own class; where nothing is wrong, with its denial: "no fracture"."""
OTHER = "qother"
"""A class of the prediction set."""
FOREIGN = "qforeign"
"""Any other class."""
BARE = "qbare"
"""What a class denies, said without its denial: "a fracture"; or a denial that the finding does not carry."""
NUMBER = "qnumber"
"""The finding's number with its percent sign."""


def split_sentences(text: str) -> list[str]:
    """Split into sentences with their full stops; a line break ends one too."""
    return [
        sentence.strip() for sentence in re.split(r"(?<=[.!?])\s+|\s*\n\s*", text.strip()) if sentence.strip()
    ]


def is_repeated(sentence: str, sentences: Iterable[str]) -> bool:
    """Return True if a sentence occurs in `sentences`, up to case and punctuation."""
    return sentence_key(sentence) in {sentence_key(other) for other in sentences}


def sentence_key(sentence: str) -> str:
    return " ".join(re.findall(r"\w+", sentence.lower()))


class SentenceNormaliser:
    """Replaces each class's name and the finding's own number by one word."""

    def __init__(self, finding: Finding) -> None:
        self.finding = finding
        self.names = _patterns()

    def normalise(self, sentence: str) -> str:
        """Return the sentence in lower case, names and number replaced, spelling variants unified."""
        words = _plain(sentence)
        for pattern, name in self.names:
            words = pattern.sub(self._word(name), words)
        digits = self.finding.percent.replace(" %", "").replace("more than", "(?:more than|over|above)")
        return re.sub(rf"(?<![\d.,]){digits} ?(?:%|percent\b|per cent\b)", NUMBER, words)

    def others_named(self, sentences: Iterable[str]) -> bool:
        """Return True if every alternative that the facts name is named."""
        text = " ".join(_plain(sentence) for sentence in sentences)
        named = set()
        for pattern, name in self.names:
            text, hits = pattern.subn(" ", text)
            named |= {name} if hits else set()
        return {alternative.name for alternative in self.finding.others[:NAMED_ALTERNATIVES]} <= named

    def _word(self, name: str | None) -> str:
        if name is None:
            return BARE
        if name == self.finding.label:
            return LABEL
        if name in self.finding.prediction_set:
            return OTHER
        return FOREIGN if taxonomy()[name].finding else BARE


@cache
def _patterns() -> tuple[tuple[re.Pattern[str], str | None], ...]:
    return tuple(_names(taxonomy().classes))


def _names(classes: Iterable[Class]) -> Iterator[tuple[re.Pattern[str], str | None]]:
    """Yield patterns of names with their class, denials first, longest first; None: a denied thing without denial."""
    denials, names, bare = [], [], []
    for entry in classes:
        spoken = sorted({_plain(name) for name in (entry.meaning, *entry.also_called)}, key=len, reverse=True)
        if entry.finding:
            names += [(rf"(?:\b(?:an?|the) )?\b{_body(name)}\b", entry.name) for name in spoken]
            continue
        for name in spoken:
            thing = _body(name.removeprefix("no "))
            denials.append(
                (rf"\b(?:no|without|free of) (?:visible )?(?:signs? of )?(?:any |an? )?{thing}\b", entry.name)
            )
            bare.append((rf"(?:\b(?:an?|the|any) )?\b{thing}\b", None))
    for group in (denials, names, bare):
        for pattern, owner in sorted(group, key=lambda pair: -len(pair[0])):
            yield re.compile(pattern), owner


def _body(name: str) -> str:
    return re.escape(re.sub(r"^(?:an?|the) ", "", name))


def _plain(text: str) -> str:
    text = text.lower().replace("’", "'").replace("\u00a0", " ").replace("\u202f", " ").replace("_", " ")
    text = re.sub(r"\bx[- ]?ray", "xray", text)
    text = re.sub(r"n't\b", " not", re.sub(r"\bcan't\b", "cannot", text))
    return re.sub(r"'s\b", "", text)
