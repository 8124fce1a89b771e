from typing import Any

import pytest

from tests.ranks.same_bits import assert_same_bits, assert_same_state, weights


def test_a_run_killed_and_resumed_ends_with_the_same_bits_as_an_undisturbed_one(gloo: Any) -> None:
    assert gloo.results["killed"]["killed_at"] == 5
    assert_same_bits(gloo.folder / "undisturbed", gloo.folder / "killed")
    assert_same_state(gloo, "undisturbed/undisturbed", "killed/resumed")
    assert gloo.results["resumed"]["history"] == gloo.results["undisturbed"]["history"]


def test_a_run_that_was_told_to_end_with_its_epoch_goes_on_with_the_same_bits(gloo: Any) -> None:
    halted, resumed = gloo.results["halted"], gloo.results["halted-resumed"]
    assert (halted["told"], len(halted["losses"])) == ([1], 4)
    assert (resumed["told"], len(resumed["losses"])) == ([1, 2], 4)
    assert_same_state(gloo, "undisturbed/undisturbed", "halted/halted-resumed")


def test_a_run_that_begins_with_another_one_s_checkpoint_ends_as_that_one_would(gloo: Any) -> None:
    branched = gloo.results["branched"]
    assert (branched["told"], len(branched["losses"])) == ([1, 2], 4)
    assert branched["history"] == gloo.results["undisturbed"]["history"]
    assert_same_bits(gloo.folder / "undisturbed", gloo.folder / "branched")


def test_running_statistics_of_batch_norm_resume_with_the_same_bits_too(gloo: Any) -> None:
    assert_same_bits(gloo.folder / "norms", gloo.folder / "norms-killed")
    assert gloo.results["norms"]["history"] == gloo.results["norms-resumed"]["history"]
    assert any("running_mean" in name for name in weights(gloo.folder / "norms"))


def test_a_resumed_run_repeats_only_the_steps_after_its_last_checkpoint(gloo: Any) -> None:
    assert gloo.results["undisturbed"]["step"] == gloo.results["resumed"]["step"] == 8
    assert len(gloo.results["resumed"]["losses"]) == 8 - 4


def test_two_ranks_learn_the_same_as_one_at_the_same_global_batch(gloo: Any) -> None:
    two, one = gloo.results["two"]["history"], gloo.results["one"]["history"]
    assert len(two) == len(one) == 2
    for row, other in zip(two, one, strict=True):
        assert row["train_loss"] == pytest.approx(other["train_loss"], abs=1e-5)
        assert row["validation_loss"] == pytest.approx(other["validation_loss"], abs=1e-5)


def test_a_run_that_goes_on_with_fewer_ranks_learns_the_same(gloo: Any) -> None:
    elastic, one = gloo.results["elastic"]["history"], gloo.results["one"]["history"]
    for row, other in zip(elastic, one, strict=True):
        assert row["train_loss"] == pytest.approx(other["train_loss"], abs=1e-4)


def test_a_checkpoint_of_another_run_is_refused_with_what_to_do(gloo: Any) -> None:
    assert "has run run, this run has another" in gloo.results["refusal"]
    assert "--fresh" in gloo.results["refusal"]


def test_the_loss_falls(gloo: Any) -> None:
    first, last = (row["train_loss"] for row in gloo.results["one"]["history"])
    assert last < first


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_to_one_to_two_ranks_changes_no_loss_of_the_fifty_steps_after_each_change(
    gloo: Any, strategy: str
) -> None:
    undisturbed = gloo.results[f"long-{strategy}"]["losses"]
    two, one, two_again = (part["losses"] for part in gloo.results["changing"][strategy])
    assert (len(two), len(one), len(two_again)) == (52, 52, 48)
    worst = max(abs(a - b) for a, b in zip(undisturbed, [*two, *one, *two_again], strict=True))
    assert worst < 1e-4
    assert undisturbed[:52] == two
    assert undisturbed[52:104] != one  # another order of sums, so this was another number of ranks


def test_how_often_checkpoints_are_made_changes_nothing_of_what_is_learned(gloo: Any) -> None:
    assert_same_bits(gloo.folder / "undisturbed", gloo.folder / "seldom")
