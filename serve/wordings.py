"""Findings and good answers about them: what the language model is taught with, and what it is asked afterwards.

An answer says the facts of `serve.finding` in one of several wordings, chosen by the finding's hash, and has to pass
`serve.explanation_check` like anything else that a patient reads. Findings are drawn from the taxonomy; which of them
are never taught is a hash of what they say. Knows neither Ray nor torch.
"""

import hashlib
import json
import random
from collections.abc import Iterator, Sequence

from data.taxonomy import Class, taxonomy
from serve.explanation_check import check
from serve.finding import Finding, facts, prompt, template_text
from serve.triage import triage

HELD_OUT = 5
"""One of so many combinations of label, alternatives and number is never taught."""
ABSTAINED_SHARE = 0.25
MOST_OTHERS = 4
SAW = ("{saw}", "In this {shown}, the software saw {what}.", "The software found {what} in this {shown}.")
SURE = (
    "It is {percent} sure of this.",
    "The software is {percent} sure of this.",
    "Its confidence in this is {percent}.",
)
NOT_SURE = (
    "The software is not sure what this X-ray shows.",
    "The software is unsure what this X-ray shows.",
)
GUESS = (
    "Its best guess is {label}, and it is only {percent} sure of this.",
    "The best guess of the software is {label}, and it is only {percent} sure of this.",
)
DOCTOR = {
    "urgent": ("Please see a doctor about this today.", "Please show this to a doctor today."),
    "soon": ("Please see a doctor about this soon.", "Please talk to a doctor about this soon."),
    "routine": (
        "Please talk to a doctor about this at your next visit.",
        "Please ask a doctor about this at your next visit.",
    ),
}


def answer(finding: Finding) -> str:
    """The facts in a wording that belongs to this finding."""
    draw = random.Random(_digest("wording", finding.as_dict()))
    said = {fact.key: fact.sentence for fact in facts(finding)}
    region = "chest X-ray" if finding.named.region == "chest" and finding.named.finding else "X-ray"
    words = {
        "saw": said["finding"],
        "shown": region,
        "what": f"signs of {finding.named.meaning}" if finding.named.finding else finding.named.meaning,
        "label": finding.named.meaning,
        "percent": finding.percent,
    }
    first = (NOT_SURE, GUESS) if finding.abstained else (SAW, SURE)
    said["finding"], said["number"] = (draw.choice(one).format(**words) for one in first)
    said["doctor"] = draw.choice(DOCTOR[finding.triage])
    return " ".join(said.values())


def pairs(findings: Sequence[Finding]) -> list[tuple[str, str]]:
    """What the model is asked about each finding, and what it is to answer; only answers that the checker passes."""
    return [(prompt(one), said) for one in findings if not check(said := answer(one), one)]


def taught(count: int, *, seed: int) -> list[Finding]:
    """Findings to learn from."""
    return _some(count, seed, held_out=False)


def unseen(count: int, *, seed: int) -> list[Finding]:
    """Findings whose combination of label, alternatives and number is never taught, whatever the seed."""
    return _some(count, seed, held_out=True)


def is_held_out(finding: Finding) -> bool:
    """Whether it is never taught; which triage it has and whether it is an answer make no difference."""
    others = sorted(one.name for one in finding.others)
    return _digest("split", [finding.label, others, finding.percent]) % HELD_OUT == 0


def _some(count: int, seed: int, *, held_out: bool) -> list[Finding]:
    found: dict[str, Finding] = {}
    for one in _drawn(seed):
        if is_held_out(one) == held_out:
            found.setdefault(template_text(one), one)
        if len(found) >= count:
            break
    return list(found.values())


def _drawn(seed: int) -> Iterator[Finding]:
    """Findings without end, each class as often as another, as a calibrated classifier could make them."""
    draw, classes = random.Random(seed), taxonomy().classes
    while True:
        yield _finding(draw, draw.choice(classes))


def _finding(draw: random.Random, label: Class) -> Finding:
    abstained = draw.random() < ABSTAINED_SHARE
    confidence = draw.uniform(0.15, 0.6) if abstained else draw.uniform(0.4, 1.0)
    alike = [one.name for one in taxonomy().classes if one.region == label.region and one.name != label.name]
    most = min(MOST_OTHERS, len(alike)) if confidence < 0.9 else 0
    others = draw.sample(alike, draw.randint(min(1, most) if abstained else 0, most))
    left = 1 - confidence
    probabilities = {name: left / (nth + 2) for nth, name in enumerate(others)} | {label.name: confidence}
    return Finding(
        label=label.name,
        confidence=round(confidence, 4),
        abstained=abstained,
        prediction_set=(label.name, *others),
        triage=triage(probabilities, abstained=abstained),
    )


def _digest(what: str, value: object) -> int:
    told = f"{what}:{json.dumps(value, sort_keys=True)}".encode()
    return int.from_bytes(hashlib.blake2b(told, digest_size=8).digest(), "big")
