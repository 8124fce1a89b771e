import csv
import io
import json

import numpy as np
import pytest

from train.metrics import report
from train.metrics.calibration import CalibrationConfig, calibrate
from train.metrics.report import Answered, HeldOut

NAMES = ("normal", "covid19", "tuberculosis")
COUNT = 120


def sample(seed: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, COUNT)
    logits = rng.normal(size=(COUNT, 3)) + 3 * np.eye(3)[labels]
    return logits, labels, [f"{seed}-{i // 2}" for i in range(COUNT)]


@pytest.fixture(scope="module")
def built() -> report.Report:
    logits, labels, groups = sample(0)
    held, held_labels, held_groups = sample(1)
    answered = Answered(
        logits_NK=logits,
        labels_N=labels,
        groups=groups,
        sources=["x" if i % 3 else "y" for i in range(COUNT)],
        sexes=["F" if i % 2 else None for i in range(COUNT)],
        ages=[float(i) for i in range(COUNT)],
        views=["PA"] * COUNT,
    )
    held_out = HeldOut(logits_NK=held, labels_N=held_labels, groups=held_groups)
    return report.build(answered, held_out, NAMES, calibrate(held, held_labels, CalibrationConfig()))


def test_the_report_has_what_gates_and_people_ask(built: report.Report) -> None:
    assert built.accuracy.low <= built.accuracy.value <= built.accuracy.high
    assert built.accuracy.groups == 60
    assert set(built.sources) == {"x", "y"}
    assert [one.label for one in built.class_counts()] == list(NAMES)
    assert built.confusion_KK.sum() == COUNT
    assert 0 <= built.abstained.value < 1
    assert built.set_size.value >= 1
    assert built.set_coverage.value >= built.coverage.value >= 0.8
    assert built.abnormal is not None
    assert built.abnormal["auroc"].value > 0.9
    assert {one.attribute for one in built.subgroups} == {"sex", "age", "view", "source"}


def test_each_figure_has_an_interval(built: report.Report) -> None:
    flat = built.scalars()
    for name in (
        *("accuracy", "balanced_accuracy", "macro_f1", "ece", "ece_before", "coverage", "set_coverage"),
        *("macro_auroc", "set_size", "abstained"),
        *("false_normal_rate", "abnormal_auroc", "abnormal_sensitivity", "answered_accuracy"),
    ):
        assert flat[f"{name}_low"] <= flat[name] <= flat[f"{name}_high"], name


def test_a_source_has_the_figures_of_its_images_alone(built: report.Report) -> None:
    logits, labels, _ = sample(0)
    mine = np.arange(COUNT) % 3 == 0
    found = built.sources["y"]
    assert found.images == mine.sum()
    assert found.overall.accuracy.value == (logits.argmax(axis=1) == labels)[mine].mean()
    assert sum(one.images for one in found.classes) == mine.sum()
    assert found.as_dict()["value"] == found.overall.accuracy.value


def test_it_can_be_written_as_json(built: report.Report) -> None:
    read = json.loads(json.dumps(built.as_dict()))
    assert read["classes"][1]["label"] == "covid19"
    assert read["classes"][1]["recall_low"] <= read["classes"][1]["recall"]
    assert len(read["reliability"]["after"]) == 15
    assert read["abstention"][0]["answered"] == 1.0
    assert np.array(read["confusion"]).shape == (3, 3)


def test_the_tables_can_be_read_again(built: report.Report) -> None:
    read = {name: list(csv.DictReader(io.StringIO(text))) for name, text in built.tables().items()}
    assert [row["label"] for row in read["classes.csv"]] == list(NAMES)
    assert len(read["source_classes.csv"]) == 6
    rows = [row for row in read["confusion.csv"] if row["truth"] == "covid19"]
    assert sum(float(row["share"]) for row in rows) == pytest.approx(1)
    assert sum(int(row["images"]) for row in rows) == built.confusion_KK[1].sum()
    assert {row["source"] for row in read["sources.csv"]} == {"x", "y"}
    assert len(read["subgroups.csv"]) == len(built.subgroups)
    assert float(read["abstention.csv"][0]["accuracy"]) == built.accuracy.value


def test_a_table_has_the_columns_of_all_its_rows() -> None:
    assert report.as_csv([{"a": 1}, {"a": 2, "b": 3}]) == "a,b\n1,\n2,3\n"
