"""How the gates are set: on the command line, and from the pipeline's caller to its part in the cluster."""

import pytest

from jobs import evaluate
from jobs.runtime import entry
from train.evaluation.gates import Gates


def gates(*argv: str) -> Gates:
    return entry.parse(evaluate.Arguments, "evaluate", argv).gates


def test_without_arguments_the_gates_are_the_documented_ones() -> None:
    assert gates() == Gates()


def test_single_numbers_classes_and_families_can_be_set() -> None:
    told = gates("--gates.recall_floor", "0.6", "--gates.required_classes", "[normal]")
    assert (told.recall_floor, told.required_classes) == (0.6, ("normal",))
    told = gates("--gates.reported", '{"development": [shortcut, champion]}')
    assert dict(told.reported) == {"development": ("shortcut", "champion")}
    assert gates("--gates.beyond_chance", "[development, staging]").beyond_chance == (
        "development",
        "staging",
    )


def test_one_threshold_of_behaviour_can_be_set_and_the_others_stay() -> None:
    assert dict(gates("--gates.behaviour.rotation", "0.9").behaviour) == {
        **Gates().behaviour,
        "rotation": 0.9,
    }


def test_an_unknown_family_is_refused_before_anything_is_done() -> None:
    with pytest.raises(entry.ArgumentsError, match="names shortcuts"):
        gates("--gates.reported", '{"development": [shortcuts]}')
