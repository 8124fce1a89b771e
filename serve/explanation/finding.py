"""One structured finding, and the sentences that state it: the facts of every explanation.

The explainer shows the facts to a language model and lets it rewrite them; `template_text` says the same without any
model. A finding carries no patient data: no name, no identifier, no pseudonym. Knows neither Ray nor torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from data.taxonomy import Class, taxonomy
from serve.classifier.triage import TRIAGES

NAMED_ALTERNATIVES = 3
"""At most this many of the other possible classes are named; the rest is "other findings"."""

FactKey = Literal["finding", "number", "alternatives", "doctor", "confirm"]
DOCTOR = {
    "urgent": "Please see a doctor about this today.",
    "soon": "Please see a doctor about this soon.",
    "routine": "Please talk to a doctor about this at your next visit.",
}


class FindingError(ValueError):
    """The finding contradicts itself or the taxonomy."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    label: str
    """A class of the taxonomy: the answer, or the best guess where `abstained`."""
    confidence: float
    """Calibrated probability of the label, 0 to 1."""
    abstained: bool
    """True when the classifier was not sure enough to answer."""
    prediction_set: tuple[str, ...]
    """Classes that hold the truth with the promised coverage, most probable first."""
    triage: str
    """routine, soon or urgent (`serve.classifier.triage`)."""
    synthetic: bool = False
    """True when the classifier learned from generated images only."""

    def __post_init__(self) -> None:
        if unknown := sorted({self.label, *self.prediction_set} - set(taxonomy().names)):
            raise FindingError(f"no such class: {', '.join(unknown)}")
        if not 0 <= self.confidence <= 1:
            raise FindingError(f"confidence must be from 0 to 1, got {self.confidence}")
        if self.triage not in TRIAGES:
            raise FindingError(f"triage must be one of {', '.join(TRIAGES)}, got {self.triage!r}")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Finding":
        """Build from `as_dict`."""
        return cls(**{**values, "prediction_set": tuple(values["prediction_set"])})

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def named(self) -> Class:
        """The label's entry in the taxonomy."""
        return taxonomy()[self.label]

    @property
    def others(self) -> tuple[Class, ...]:
        """The other possible classes, most probable first."""
        return tuple(taxonomy()[name] for name in self.prediction_set if name != self.label)

    @property
    def percent(self) -> str:
        """The confidence as patients read it: whole percent, and never a claim of certainty."""
        if self.confidence >= 0.995:
            return "more than 99 %"
        if self.confidence < 0.005:
            return "less than 1 %"
        return f"{round(100 * self.confidence)} %"


@dataclass(frozen=True, kw_only=True)
class Fact:
    key: FactKey
    sentence: str
    """As it stands in the template, after the facts before it."""
    alone: str
    """As it can be appended to any text about this finding."""
    required: bool = True


def facts(finding: Finding) -> list[Fact]:
    """Return the facts to state, in order: what was seen, how certain, what else is possible, what to do."""
    not_sure = _fact("finding", "The software is not sure what this X-ray shows.")
    stated = [not_sure, _guess(finding)] if finding.abstained else [_saw(finding), _sure(finding)]
    if finding.others:
        stated.append(_fact("alternatives", _alternatives(finding.others)))
    stated.append(_fact("doctor", DOCTOR[finding.triage]))
    compared = "your symptoms" if finding.named.region == "chest" else "an examination"
    can = "tell" if finding.abstained else "confirm this"
    confirm = f"Only a doctor can {can}, by comparing the X-ray with {compared}."
    stated.append(Fact(key="confirm", sentence=confirm, alone=confirm, required=False))
    return stated


def template_text(finding: Finding) -> str:
    """Return the whole explanation without a model; the disclaimer is not part of it."""
    return " ".join(fact.sentence for fact in facts(finding))


def prompt(finding: Finding) -> str:
    """Return the language model's prompt: the facts and nothing else."""
    return (
        "Rewrite these facts as one short, friendly paragraph for the patient. Keep every fact and every "
        f"number. Do not add anything.\n\n{template_text(finding)}"
    )


def _fact(key: FactKey, sentence: str) -> Fact:
    return Fact(key=key, sentence=sentence, alone=sentence)


def _saw(finding: Finding) -> Fact:
    shown = "chest X-ray" if finding.named.region == "chest" and finding.named.finding else "X-ray"
    signs = "signs of " if finding.named.finding else ""
    return _fact("finding", f"The software saw {signs}{finding.named.meaning} in this {shown}.")


def _sure(finding: Finding) -> Fact:
    what = f"of {finding.named.meaning}"
    if not finding.named.finding:
        what = f"that there is {finding.named.meaning}"
    return Fact(
        key="number",
        sentence=f"It is {finding.percent} sure of this.",
        alone=f"The software is {finding.percent} sure {what}.",
    )


def _guess(finding: Finding) -> Fact:
    meaning = finding.named.meaning
    return Fact(
        key="number",
        sentence=f"Its best guess is {meaning}, and it is only {finding.percent} sure of this.",
        alone=f"The best guess of the software is {meaning}, and it is only {finding.percent} sure of this.",
    )


def _alternatives(others: Sequence[Class]) -> str:
    """Write: X and Y also remain possible. The X-ray may also show no Z."""
    named = others[:NAMED_ALTERNATIVES]
    present = [entry.meaning for entry in named if entry.finding]
    absent = [entry.meaning for entry in named if not entry.finding]
    if len(others) > len(named):
        present.append("other findings")
    sentences = []
    if present:
        verb = "remain" if len(present) > 1 or len(others) > len(named) else "remains"
        subject = _listed(present, "and")
        sentences.append(f"{subject[0].upper()}{subject[1:]} also {verb} possible.")
    if absent:
        sentences.append(f"The X-ray may also show {_listed(absent, 'or')}.")
    return " ".join(sentences)


def _listed(names: Sequence[str], word: str) -> str:
    *first, last = names
    return f"{', '.join(first)} {word} {last}" if first else last
