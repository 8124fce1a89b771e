"""A step whose loss is no number."""

import re
from typing import Any

import numpy as np

from tests.ranks.same_bits import assert_same_bits, assert_same_state
from train.loop.fit import SKIPPED_BATCHES


def test_a_batch_that_makes_the_loss_no_number_is_passed_over_once(gloo: Any) -> None:
    result = gloo.results["poisoned"]
    assert len(result["skipped"]) == SKIPPED_BATCHES
    assert (
        result["step"] == 15
    )  # skipped batches count: the learning rate and the epochs stay where they were
    assert np.isfinite(result["history"][0]["train_loss"])


def test_a_kill_after_the_loss_was_no_number_changes_nothing(gloo: Any) -> None:
    assert_same_bits(gloo.folder / "poisoned", gloo.folder / "poisoned-killed")
    assert_same_state(gloo, "poisoned/poisoned", "poisoned-killed/poisoned-resumed")


def test_a_loss_that_is_no_number_again_ends_the_run_and_says_where_and_what_to_change(gloo: Any) -> None:
    assert re.fullmatch(
        r"the gradient is no number at step \d+: lower optim.learning_rate \(now 0.001\); steps \d+ to \d+ were "
        "skipped for the same reason before",
        gloo.results["poisoned-twice"]["stopped"],
    )
