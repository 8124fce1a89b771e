"""Validation over any number of ranks."""

from typing import Any

import pytest


def test_validation_counts_each_image_once_whatever_the_number_of_ranks(gloo: Any) -> None:
    two, one = gloo.results["two"], gloo.results["one"]
    assert two["first_validation_loss"] == pytest.approx(one["first_validation_loss"], abs=1e-6)
    assert two["history"][-1]["validation_accuracy"] * 7 == pytest.approx(
        round(two["history"][-1]["validation_accuracy"] * 7)
    )
