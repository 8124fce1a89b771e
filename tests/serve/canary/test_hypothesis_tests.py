"""Each hypothesis test speaks on its own defect."""

from dataclasses import replace

import numpy as np
import pytest

from serve.canary.evidence import Evidence
from serve.canary.guardrails import Step
from serve.canary.observations import MirroredPair, PhysicianFeedback
from serve.canary.simulation import GOOD, MIX, Quality, with_errors
from serve.canary.verdict import worse_than_champion
from tests.serve.canary.evidence_of import CONFIG, of, seen

DRIFTED = tuple(np.roll(MIX, 3).tolist())


@pytest.mark.parametrize(
    ("canary", "guardrail"),
    [
        (with_errors(0.05), "errors"),
        (replace(GOOD, invalid_outputs=0.05), "invalid_outputs"),
        (replace(GOOD, abstentions=0.25), "abstentions"),
        (replace(GOOD, slower=2.5), "latency"),
        (replace(GOOD, mix=DRIFTED), "drift"),
        (replace(GOOD, disagreements=0.3), "disagreement"),
    ],
)
def test_each_guardrail_speaks_on_its_defect_and_no_other_one_does(canary: Quality, guardrail: str) -> None:
    evidence = seen(canary)
    assert worse_than_champion(evidence) == [guardrail]
    found = of(evidence)
    assert (found.action, found.alert) == ("roll_back", True)
    assert guardrail in found.why
    figure = next(one for one in found.guardrails if one.name == guardrail)
    assert figure.evidence >= figure.needed
    assert worse_than_champion(seen()) == []


def test_mirrored_errors_speak_where_there_is_no_concurrent_traffic() -> None:
    for share in (0.0, 1.0):
        evidence = Evidence(CONFIG, started_at=0.0)
        evidence.enter(Step(share=share), number=1, at=0.0)
        evidence.observe(
            *[MirroredPair(at=1.0, canary_failed=True)] * 4, *[MirroredPair(at=1.0, agree=True)] * 100
        )
        assert worse_than_champion(evidence) == []
        evidence.observe(*[MirroredPair(at=2.0, canary_failed=True)] * 8)
        assert worse_than_champion(evidence) == ["mirrored_errors"]


def test_physicians_who_correct_the_canary_roll_it_back() -> None:
    evidence = seen(minutes=1)
    told = [PhysicianFeedback(at=90.0, arm="champion", share=0.1, agrees=n > 3) for n in range(90)]
    told += [PhysicianFeedback(at=90.0, arm="canary", share=0.1, agrees=n > 6) for n in range(10)]
    evidence.observe(*told)
    assert worse_than_champion(evidence) == ["feedback"]
