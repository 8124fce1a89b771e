import time
from dataclasses import replace

import numpy as np
import pytest

from data.dataset.versions import SplitTable
from data.imaging.preprocess import PixelConfig
from train.export.export import ExportConfig, ExportError, calibration_inputs
from train.export.variants import (
    DYNAMIC,
    FLOAT32,
    STATIC,
    TORCH,
    Variant,
    accuracy_loss,
    better_int8,
    latency_ms,
    measure,
    table,
)

SIDE = 16
ROW = Variant(
    name=TORCH,
    bytes=4_000_000,
    latency_ms=3.0,
    accuracy=0.9,
    accuracy_loss=0.0,
    accuracy_loss_at_most=0.0,
    largest_logit_difference=0.0,
    same_label=1.0,
    validation_accuracy=0.9,
)


def split(labels: list[int], prefix: str = "s") -> SplitTable:
    count = len(labels)
    rng = np.random.default_rng(count)
    return SplitTable(
        sample_hashes=[f"{prefix}{i:03d}" for i in range(count)],
        pixels_NHW=rng.integers(0, 256, (count, SIDE, SIDE), dtype=np.uint8),
        labels_N=np.array(labels),
        groups=[str(i) for i in range(count)],
        sources=["a"] * count,
        sites=[None] * count,
        sexes=[None] * count,
        ages=[None] * count,
        views=[None] * count,
        sha256s=[""] * count,
    )


def rows(**validation: float) -> list[Variant]:
    """The reference at 0.9, then INT8 forms with these validation accuracies; dynamic is the faster one."""
    speeds = {"dynamic": (DYNAMIC, 1.0), "static": (STATIC, 2.0)}
    return [ROW] + [
        replace(ROW, name=speeds[one][0], latency_ms=speeds[one][1], validation_accuracy=accuracy)
        for one, accuracy in validation.items()
    ]


def test_the_faster_int8_is_taken_while_it_keeps_the_accuracy() -> None:
    assert better_int8(rows(dynamic=0.895, static=0.9), 0.01).name == DYNAMIC
    assert better_int8(rows(dynamic=0.88, static=0.9), 0.01).name == STATIC
    assert better_int8(rows(dynamic=0.5, static=0.6), 0.01).name == STATIC


def test_accuracy_loss_is_paired_and_has_an_upper_bound() -> None:
    labels_N = np.arange(200) % 2
    right_NK = np.eye(2)[labels_N]
    worse_NK = right_NK.copy()
    worse_NK[:10] = worse_NK[:10, ::-1]
    groups = [str(i) for i in range(200)]
    loss, at_most = accuracy_loss(right_NK, worse_NK, labels_N, groups)
    assert loss == pytest.approx(0.05)
    assert 0.06 < at_most < 0.1
    assert accuracy_loss(right_NK, right_NK, labels_N, groups) == (0.0, 0.0)
    gain, _ = accuracy_loss(worse_NK, right_NK, labels_N, groups)
    assert gain == pytest.approx(-0.05)


def test_every_form_is_measured_on_the_same_images_beside_the_first() -> None:
    test, validation = split([0, 1] * 20), split([0, 1] * 10, "v")

    def same(inputs_NCHW: np.ndarray) -> np.ndarray:
        mean_N = inputs_NCHW.mean(axis=(1, 2, 3))
        return np.stack([mean_N, -mean_N], axis=1)

    found = measure(
        {TORCH: same, FLOAT32: lambda x: same(x) + 0.25, DYNAMIC: lambda x: -same(x)},
        {TORCH: 10, FLOAT32: 20, DYNAMIC: 5},
        validation=validation,
        test=test,
        pixels=PixelConfig(side=SIDE),
        latency_runs=3,
    )
    by_name = {row.name: row for row in found}
    assert list(by_name) == [TORCH, FLOAT32, DYNAMIC]
    assert by_name[FLOAT32].largest_logit_difference == pytest.approx(0.25)
    assert (by_name[FLOAT32].same_label, by_name[DYNAMIC].same_label) == (1.0, 0.0)
    assert by_name[DYNAMIC].accuracy == pytest.approx(1 - by_name[TORCH].accuracy)
    assert by_name[DYNAMIC].accuracy_loss == pytest.approx(2 * by_name[TORCH].accuracy - 1)
    assert [row.bytes for row in found] == [10, 20, 5]
    assert table(found).count("\n") == 5


def test_latencies_are_milliseconds_of_processor_time() -> None:
    def slow(inputs_NCHW: np.ndarray) -> np.ndarray:
        end_s = time.process_time() + 0.004
        while time.process_time() < end_s:
            pass
        return inputs_NCHW

    def asleep(inputs_NCHW: np.ndarray) -> np.ndarray:
        time.sleep(0.02)  # as a process that another one has pushed off the core
        return inputs_NCHW

    times = latency_ms({"slow": slow, "asleep": asleep}, np.zeros(1), 5)
    assert times["slow"] == pytest.approx(4, abs=1)
    assert times["asleep"] < 1


def test_calibration_takes_training_images_class_by_class_and_always_the_same() -> None:
    train = split([0] * 30 + [1] * 3 + [2] * 30)
    chosen = calibration_inputs(train, PixelConfig(side=SIDE), 9)
    assert chosen.shape == (9, 1, SIDE, SIDE)
    shuffled = np.random.default_rng(0).permutation(len(train))
    again = replace(
        train,
        sample_hashes=[train.sample_hashes[i] for i in shuffled],
        pixels_NHW=train.pixels_NHW[shuffled],
        labels_N=train.labels_N[shuffled],
    )
    assert np.array_equal(chosen, calibration_inputs(again, PixelConfig(side=SIDE), 9))
    assert len(calibration_inputs(train, PixelConfig(side=SIDE), 1000)) == len(train)


@pytest.mark.parametrize("wrong", [{"calibration_images": 0}, {"latency_runs": 0}, {"largest_loss": -0.1}])
def test_impossible_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ExportError, match=next(iter(wrong))):
        ExportConfig(**wrong)
