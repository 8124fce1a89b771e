"""What the model card says about a report."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.cards import card
from tests.train.metrics.samples import COUNT, sample
from train.evaluation import model_card
from train.evaluation.gates import Gates, judge, overall
from train.metrics import report
from train.metrics.gate_inputs import GateInputs


@pytest.fixture(scope="module")
def built() -> report.Report:
    return sample(np.arange(COUNT) % 3)


def written(built: report.Report, **change: Any) -> str:
    settings = {
        "dataset_version": "d1",
        "git_commit": "abc",
        "architecture": {"timm": "levit_128s", "kwargs": {}},
        "parameters": 1_234_567,
        "pixels": {"side": 96},
        "calibration": {"temperature": 0.75, "abstain_below": 0.4},
    }
    measured = GateInputs(accuracy=built.accuracy, classes=built.class_counts())
    results = judge(measured, Gates(), "production")
    return model_card.card(
        model_version="3",
        bundle_card=card(**(settings | change)),
        dataset={"sources": {"clinic": 90}, "licenses": {"CC0-1.0": 90}},
        report=built,
        gates=results,
        verdict=overall(results),
        environment="production",
    )


def test_the_card_tells_use_data_figures_gates_and_limits(built: report.Report) -> None:
    text = written(built)
    for heading in ("Intended use", "Model", "Data", "Figures", "By class", "By subgroup", "Gates", "Limits"):
        assert f"\n## {heading}\n" in text
    assert "no medical device" in text
    assert "drawings made by a program" in text
    assert "| CC0-1.0 | 90 |" in text
    assert f"| accuracy | {built.accuracy.value:.3f} |" in text
    assert "1,234,567" in text
    assert "`levit_128s`, a Vision Transformer of timm" in text
    assert text.startswith("# xray-vit 3\n")
    assert "Not known: `champion`: there is no other champion" in text


def test_the_card_names_the_kind_of_network(built: report.Report) -> None:
    convnext = {"timm": "convnext_tiny", "kwargs": {}}
    assert "`convnext_tiny`, a ConvNeXt of timm" in written(built, architecture=convnext)


def test_the_card_of_a_model_of_real_images_does_not_call_them_drawn(built: report.Report) -> None:
    assert "drawings" not in written(built, synthetic=False)


def test_what_failed_and_what_is_not_known_are_among_the_limits(built: report.Report) -> None:
    poor = replace(built, overall=replace(built.overall, accuracy=replace(built.accuracy, value=0.3)))
    assert "Failed: `accuracy`: test accuracy 0.300" in written(poor)
    few = replace(built, classes=[replace(one, images=4) for one in built.classes])
    assert "Not known: `recall_covid19`: covid19 has 4 test images" in written(few)
