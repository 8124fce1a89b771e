"""What `python -m jobs.rollout` takes, and what it does not let pass unread."""

from typing import Any

import pytest

from jobs.rollout import Arguments, parse_steps


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"verb": "promote", "version": "7"}, "promote takes no --version"),
        ({"verb": "pause", "wait_s": 3.0}, "pause takes no --wait_s"),
        ({"verb": "start", "version": "7", "id": 3}, "start takes no --id"),
        ({"verb": "status", "to": "5", "steps": "0.1"}, "status takes no --steps, --to"),
        ({"verb": "rollback", "to": "5", "id": 3}, "not both"),
    ],
)
def test_what_a_verb_would_not_read_is_refused(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Arguments(**given)


@pytest.mark.parametrize("verb", ["status", "promote", "pause", "resume", "rollback", "history"])
def test_a_verb_may_name_the_rollout(verb: Any) -> None:
    assert Arguments(verb=verb, id=3).id == 3


def test_steps_are_a_name_or_shares() -> None:
    assert parse_steps("blue_green") == "blue_green"
    assert parse_steps(".05,1") == [0.05, 1.0]
    assert parse_steps(None) is None
