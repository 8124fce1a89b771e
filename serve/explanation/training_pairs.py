"""Training pairs of the language model: findings and good answers about them, and the findings held out for tests.

An answer states the facts of `serve.explanation.finding` in one of several wordings, chosen by the finding's hash,
and has to pass `serve.explanation.checker`. Findings are drawn from the taxonomy; a hash of their facts decides
which are held out. Knows neither Ray nor torch.
"""

import hashlib
import json
import random
from collections.abc import Iterator, Sequence

from data.taxonomy import Class, taxonomy
from serve.classifier.triage import triage
from serve.explanation.checker import check
from serve.explanation.finding import Finding, facts, prompt, template_text

HELD_OUT = 5
"""One of this many combinations of label, alternatives and number is held out."""
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
    """Phrase the facts in the wording that belongs to this finding."""
    draw = random.Random(_digest("wording", finding.as_dict()))
    sentences = {fact.key: fact.sentence for fact in facts(finding)}
    region = "chest X-ray" if finding.named.region == "chest" and finding.named.finding else "X-ray"
    words = {
        "saw": sentences["finding"],
        "shown": region,
        "what": f"signs of {finding.named.meaning}" if finding.named.finding else finding.named.meaning,
        "label": finding.named.meaning,
        "percent": finding.percent,
    }
    first = (NOT_SURE, GUESS) if finding.abstained else (SAW, SURE)
    sentences["finding"], sentences["number"] = (draw.choice(wordings).format(**words) for wordings in first)
    sentences["doctor"] = draw.choice(DOCTOR[finding.triage])
    return " ".join(sentences.values())


def pairs(findings: Sequence[Finding]) -> list[tuple[str, str]]:
    """Return prompt and answer for each finding, where the checker accepts the answer."""
    return [(prompt(finding), text) for finding in findings if not check(text := answer(finding), finding)]


def taught(count: int, *, seed: int) -> list[Finding]:
    """Draw findings to train on."""
    return _some(count, seed, held_out=False)


def unseen(count: int, *, seed: int) -> list[Finding]:
    """Draw findings whose combination of label, alternatives and number is held out, whatever the seed."""
    return _some(count, seed, held_out=True)


def is_held_out(finding: Finding) -> bool:
    """Return True if a finding is held out; its triage and whether it is an answer make no difference."""
    others = sorted(entry.name for entry in finding.others)
    return _digest("split", [finding.label, others, finding.percent]) % HELD_OUT == 0


def _some(count: int, seed: int, *, held_out: bool) -> list[Finding]:
    findings: dict[str, Finding] = {}
    for finding in _drawn(seed):
        if is_held_out(finding) == held_out:
            findings.setdefault(template_text(finding), finding)
        if len(findings) >= count:
            break
    return list(findings.values())


def _drawn(seed: int) -> Iterator[Finding]:
    """Yield findings without end, each class equally often, as a calibrated classifier could make them."""
    draw, classes = random.Random(seed), taxonomy().classes
    while True:
        yield _finding(draw, draw.choice(classes))


def _finding(draw: random.Random, label: Class) -> Finding:
    abstained = draw.random() < ABSTAINED_SHARE
    confidence = draw.uniform(0.15, 0.6) if abstained else draw.uniform(0.4, 1.0)
    alike = [
        entry.name
        for entry in taxonomy().classes
        if entry.region == label.region and entry.name != label.name
    ]
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
    text = f"{what}:{json.dumps(value, sort_keys=True)}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")
