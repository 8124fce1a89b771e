import numpy as np

from train import report

NAMES = ("normal", "covid19", "tuberculosis")
CALIBRATION = {"temperature": 2.0, "conformal_threshold": 0.2, "coverage": 0.9, "abstain_below": 0.5}


def built() -> report.Report:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 120)
    logits = rng.normal(size=(120, 3)) + 3 * np.eye(3)[labels]
    return report.build(
        logits,
        labels,
        groups=[f"p{i // 2}" for i in range(120)],
        sources=["x" if i % 3 else "y" for i in range(120)],
        names=NAMES,
        calibration=CALIBRATION,
    )


def test_the_report_has_what_gates_and_people_ask() -> None:
    figures = built()
    assert figures.accuracy.low <= figures.accuracy.value <= figures.accuracy.high
    assert figures.accuracy.groups == 60
    assert set(figures.sources) == {"x", "y"}
    assert [one.label for one in figures.measured().classes] == list(NAMES)
    assert figures.confusion_KK.sum() == 120
    assert 0 <= figures.abstained < 1
    assert figures.coverage >= 0.8


def test_it_can_be_written_as_json_and_csv() -> None:
    import json

    figures = built()
    assert json.loads(json.dumps(figures.as_dict()))["classes"][1]["label"] == "covid19"
    table = report.class_table(figures.classes).splitlines()
    assert table[0] == "label,images,groups,precision,recall,f1,auroc"
    assert len(table) == 4


def test_the_confusion_matrix_is_a_png() -> None:
    blob = report.confusion_figure(built().confusion_KK, NAMES, "a title")
    assert blob.startswith(b"\x89PNG")
    assert len(blob) > 5_000
