"""One forward pass gives probabilities and strangeness, for every architecture of the recipes."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from data.imaging.preprocess import PREPROCESS_VERSION, PixelConfig
from data.model_card import OUTLIERS_FILE
from jobs.recipes import RECIPES
from serve.classifier.classifier import Classifier
from train.release.fit_ood import OutlierConfig, fit
from train.vit.inference import features, logits
from train.vit.model import timm_kwargs

SIDE, CLASSES = 64, 5
SMALLER = {
    "vit_base_patch16_224": {"depth": 2},
    "vit_large_patch16_384": {"depth": 2, "embed_dim": 64, "num_heads": 2},
}
"""Their own size would take minutes here and is of no other kind."""
MODELS = {
    (one().train.model.name, str(one().train.model.kwargs)): one().train.model for one in RECIPES.values()
}
PIXELS_NHW = np.random.default_rng(0).integers(0, 256, (12, SIDE, SIDE)).astype(np.uint8)


def bundle(directory: Path, config: Any, *, judges: bool) -> torch.nn.Module:
    """What the classifier reads of a release bundle, and the model that it holds."""
    smaller = replace(config, kwargs={**config.kwargs, **SMALLER.get(config.name, {})})
    kwargs = timm_kwargs(smaller, classes=CLASSES, side=SIDE)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: torch.nn.Module = timm.create_model(smaller.name, **kwargs).eval()
    found = None
    if judges:
        known_ND = features(model, PIXELS_NHW, PixelConfig(side=SIDE))
        assert known_ND is not None
        found = fit(known_ND, np.arange(12) % CLASSES, known_ND, OutlierConfig())
        (directory / OUTLIERS_FILE).write_bytes(found.as_file())
    calibration = {"temperature": 2.0, "conformal_threshold": 0.1, "coverage": 0.9, "abstain_below": 0.3}
    card = {
        "format": 1,
        "model": "xray-vit",
        "classes": ["normal", "covid19", "tuberculosis", "bone_fracture", "bone_normal"],
        "architecture": {"timm": smaller.name, "kwargs": kwargs},
        "pixels": {"side": SIDE},
        "preprocess_version": PREPROCESS_VERSION,
        "calibration": calibration,
        "outliers": None if found is None else asdict(found.rule()),
        "dataset_version": "d",
        "synthetic": True,
    }
    (directory / "card.json").write_text(json.dumps(card))
    save_file(model.state_dict(), directory / "model.safetensors")
    return model


@pytest.mark.parametrize("config", MODELS.values(), ids=lambda one: one.name)
def test_the_logits_are_the_models_own_to_the_bit_with_strangeness_and_without(
    config: Any, tmp_path: Path
) -> None:
    model = bundle(tmp_path, config, judges=True)
    served = Classifier(tmp_path)
    assert np.array_equal(served.logits(PIXELS_NHW), logits(model, PIXELS_NHW, PixelConfig(side=SIDE)))
    judged_NC = served.judged(PIXELS_NHW)
    assert judged_NC.shape == (12, CLASSES + 1)
    assert np.isfinite(judged_NC).all()
    assert np.ptp(judged_NC[:, -1]) > 0
    served.outliers = None
    assert np.array_equal(served.probabilities(PIXELS_NHW), judged_NC[:, :-1])


def test_what_training_calls_strange_serving_calls_strange(tmp_path: Path) -> None:
    model = bundle(tmp_path, RECIPES["smoke"]().train.model, judges=True)
    known_ND = features(model, PIXELS_NHW, PixelConfig(side=SIDE))
    assert known_ND is not None
    found = fit(known_ND, np.arange(12) % CLASSES, known_ND, OutlierConfig())
    served_N = Classifier(tmp_path).judged(PIXELS_NHW)[:, -1]
    assert np.allclose(served_N, found.score(known_ND), rtol=1e-5, atol=1e-5)
    assert (served_N > found.threshold + 1e-5).sum() == 0, "the threshold is one of these, but for rounding"


def test_a_bundle_of_before_is_served_and_tells_nothing_of_strangeness(tmp_path: Path) -> None:
    bundle(tmp_path, RECIPES["smoke"]().train.model, judges=False)
    card = json.loads((tmp_path / "card.json").read_text())
    del card["outliers"]
    (tmp_path / "card.json").write_text(json.dumps(card))
    rows = Classifier(tmp_path).each(PIXELS_NHW[:2])
    assert all(not isinstance(row, str) and np.isnan(row[-1]) for row in rows)


def test_a_model_without_one_last_layer_has_no_features() -> None:
    model = timm.create_model("levit_128s", in_chans=1, num_classes=3, img_size=64, distilled=True)
    assert features(model.eval(), PIXELS_NHW[:1], PixelConfig(side=SIDE)) is None
