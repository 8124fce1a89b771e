from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy


def weights(folder: Path) -> dict[str, np.ndarray]:
    return safetensors.numpy.load((folder / "model.safetensors").read_bytes())


def assert_same_bits(one: Path, other: Path) -> None:
    left, right = weights(one), weights(other)
    assert left.keys() == right.keys()
    for name in left:
        assert np.array_equal(left[name], right[name]), name


def test_a_run_killed_and_resumed_ends_with_the_same_bits_as_an_undisturbed_one(gloo: Any) -> None:
    assert gloo.results["killed"] == {"killed_at": 5}
    assert_same_bits(gloo.folder / "undisturbed", gloo.folder / "killed")
    assert gloo.results["resumed"]["history"] == gloo.results["undisturbed"]["history"]
    assert gloo.results["resumed"]["moments"] == gloo.results["undisturbed"]["moments"]


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


def test_validation_counts_each_image_once_whatever_the_number_of_ranks(gloo: Any) -> None:
    two, one = gloo.results["two"], gloo.results["one"]
    assert two["first_validation_loss"] == pytest.approx(one["first_validation_loss"], abs=1e-6)
    assert two["history"][-1]["validation_accuracy"] * 7 == pytest.approx(
        round(two["history"][-1]["validation_accuracy"] * 7)
    )


def test_a_checkpoint_of_another_run_is_refused_with_what_to_do(gloo: Any) -> None:
    assert "has run run, this run has another" in gloo.results["refusal"]
    assert "--fresh" in gloo.results["refusal"]


def test_the_loss_falls(gloo: Any) -> None:
    first, last = (row["train_loss"] for row in gloo.results["one"]["history"])
    assert last < first
