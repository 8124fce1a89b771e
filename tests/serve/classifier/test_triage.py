"""The triage rule, at its thresholds."""

import pytest

from data.taxonomy import taxonomy
from serve.classifier.triage import TRIAGES, triage


@pytest.mark.parametrize("name", [one.name for one in taxonomy().classes if one.urgent_above is not None])
def test_a_class_is_urgent_from_its_own_threshold_on(name: str) -> None:
    threshold = taxonomy()[name].urgent_above
    assert threshold is not None
    assert triage({name: threshold}, abstained=False) == "urgent"
    assert triage({name: threshold - 1e-6}, abstained=False) == "soon"


@pytest.mark.parametrize("name", [one.name for one in taxonomy().classes if one.soon_above is not None])
def test_a_class_is_soon_from_its_own_threshold_on(name: str) -> None:
    threshold = taxonomy()[name].soon_above
    assert threshold is not None
    assert triage({name: threshold}, abstained=False) == "soon"
    assert triage({name: threshold - 1e-6}, abstained=False) == "routine"


@pytest.mark.parametrize("name", [one.name for one in taxonomy().classes if not one.finding])
def test_an_image_without_findings_is_routine_however_sure(name: str) -> None:
    assert triage({name: 1.0}, abstained=False) == "routine"


def test_the_most_pressing_class_decides_and_not_the_most_probable_one() -> None:
    assert triage({"lung_opacity": 0.55, "tuberculosis": 0.35}, abstained=False) == "soon"
    assert triage({"normal": 0.35, "tuberculosis": 0.65}, abstained=False) == "urgent"


def test_an_abstention_is_at_least_soon() -> None:
    assert triage({"normal": 0.4}, abstained=True) == "soon"
    assert triage({"tuberculosis": 0.9}, abstained=True) == "urgent"


def test_more_of_a_dangerous_class_never_makes_it_less_pressing() -> None:
    for one in taxonomy().classes:
        steps = [TRIAGES.index(triage({one.name: p / 100}, abstained=False)) for p in range(101)]
        assert steps == sorted(steps)
