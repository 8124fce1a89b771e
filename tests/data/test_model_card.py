"""Cards in each form in which the project ever wrote them, and back to the same bytes."""

import ast
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import data.model_card
from data.imaging.preprocess import PREPROCESS_VERSION, PixelConfig
from data.model_card import Architecture, Calibration, CardError, ModelCard, OutlierRule, Runtime

FIRST: dict[str, Any] = {
    "architecture": {
        "kwargs": {"img_size": 96, "in_chans": 1, "num_classes": 2},
        "timm": "vit_tiny_patch16_224",
    },
    "calibration": {
        "abstain_below": 0.4,
        "conformal_threshold": 0.12345678901234566,
        "coverage": 0.9,
        "temperature": 1,
    },
    "classes": ["normal", "covid19"],
    "config": {"epochs": 3, "model": {"name": "vit_tiny_patch16_224", "kwargs": {}}},
    "dataset_version": "d1",
    "files": {"code.zip": "00", "model.safetensors": "11"},
    "format": 1,
    "git_commit": "abc",
    "metrics": {"validation_loss": 0.1},
    "model": "xray-vit",
    "parameters": 5_000_000,
    "pixels": {"high_percentile": 99.5, "low_percentile": 0.5, "mean": 0.5, "side": 96, "std": 0.25},
    "preprocess_version": PREPROCESS_VERSION,
    "run_id": "r1",
    "synthetic": True,
}
"""Before outliers were recognised."""
RULE = {
    "false_alarms": 0.01,
    "file": "outliers.safetensors",
    "method": "relative_mahalanobis",
    "threshold": 7.25,
    "trained_on": 200,
    "validated_on": 60,
}
TRAINED = {**FIRST, "outliers": RULE}
WITHOUT_FEATURES = {**FIRST, "outliers": None}
CONTINUED = {**TRAINED, "start": "xray-vit/3"}
EDGE = {
    **WITHOUT_FEATURES,
    "model_version": "7",
    "runtime": {"form": "onnx-int8-static", "model": "model.int8.onnx"},
    "variant": "edge",
    "variants": [{"accuracy": 0.9, "name": "torch"}],
}
DRILL = {**TRAINED, "drill": "1700000000.000-1"}
FORMS = {
    "trained": TRAINED,
    "without features": WITHOUT_FEATURES,
    "continued": CONTINUED,
    "edge": EDGE,
    "drill": DRILL,
}


def text(raw: dict[str, Any]) -> bytes:
    """As `train.release.publish`, `train.export.export` and the drills always wrote a card."""
    return json.dumps(raw, sort_keys=True, indent=1).encode()


@pytest.mark.parametrize("raw", FORMS.values(), ids=FORMS)
def test_a_card_is_written_back_byte_by_byte(raw: dict[str, Any]) -> None:
    assert ModelCard.from_json(text(raw)).to_json() == text(raw)


def test_a_card_of_before_outliers_is_read_and_has_no_rule() -> None:
    card = ModelCard.from_json(text(FIRST))
    assert card.outliers is None
    assert json.loads(card.to_json()) == WITHOUT_FEATURES


def test_fields_have_their_types() -> None:
    card = ModelCard.from_json(text(EDGE))
    assert card.classes == ("normal", "covid19")
    assert card.architecture == Architecture(
        timm="vit_tiny_patch16_224", kwargs={"img_size": 96, "in_chans": 1, "num_classes": 2}
    )
    assert card.pixels == PixelConfig(side=96)
    assert card.calibration == Calibration(**FIRST["calibration"])
    assert card.runtime == Runtime(model="model.int8.onnx", form="onnx-int8-static")
    assert ModelCard.from_json(text(TRAINED)).outliers == OutlierRule(**RULE)


def test_a_key_that_this_code_does_not_know_is_kept() -> None:
    card = ModelCard.from_json(text(DRILL))
    assert card.extra == {"drill": "1700000000.000-1"}
    assert json.loads(replace(card, variant="edge").to_json()) == {**DRILL, "variant": "edge"}


def test_a_card_without_what_serving_does_not_need_is_read() -> None:
    needed = (
        "architecture", "calibration", "classes", "dataset_version", "format", "model", "pixels",
        "preprocess_version", "synthetic",
    )  # fmt: skip
    card = ModelCard.from_json(text({name: FIRST[name] for name in needed}))
    assert (card.run_id, card.files, card.parameters) == ("", {}, 0)


@pytest.mark.parametrize(
    "missing", ["classes", "architecture", "pixels", "calibration", "model", "synthetic"]
)
def test_a_card_without_what_serving_needs_is_refused(missing: str) -> None:
    raw = {name: value for name, value in TRAINED.items() if name != missing}
    with pytest.raises(CardError, match=f"lacks or mistypes a field: .*{missing}"):
        ModelCard.from_json(text(raw))


@pytest.mark.parametrize("blob", [b"[]", b"null", b"{}", b'{"format": 2}'])
def test_another_format_is_refused(blob: bytes) -> None:
    with pytest.raises(CardError, match="this code reads cards of format 1, the bundle has"):
        ModelCard.from_json(blob)


def test_another_transform_is_refused_unless_any_will_do(tmp_path: Path) -> None:
    blob = text({**TRAINED, "preprocess_version": "0"})
    (tmp_path / "card.json").write_bytes(blob)
    with pytest.raises(CardError, match="pixel transform '0', this code package makes"):
        ModelCard.read(tmp_path / "card.json")
    assert ModelCard.from_json(blob, any_transform=True).preprocess_version == "0"


def test_it_imports_what_the_edge_runner_can_have() -> None:
    imported = {
        node.module
        for node in ast.walk(ast.parse(Path(data.model_card.__file__).read_text()))
        if isinstance(node, ast.ImportFrom)
    }
    project = {name for name in imported if name and name.split(".")[0] not in sys.stdlib_module_names}
    assert project == {"data.imaging.preprocess"}
