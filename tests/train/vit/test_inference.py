import hashlib

import numpy as np
import pytest
import safetensors.torch
import torch

from data.imaging.preprocess import PixelConfig, to_model_input
from train.config import ModelConfig
from train.vit.inference import logits, rebuild, weights_sha256
from train.vit.model import architecture_of, build_vit

CONFIG = ModelConfig(name="vit_tiny_patch16_224", kwargs={"depth": 1})
ARCHITECTURE = architecture_of(CONFIG, classes=3, side=32)


def test_a_model_rebuilt_from_its_card_answers_as_the_trained_one() -> None:
    model = build_vit(CONFIG, classes=3, side=32).eval()
    blob = safetensors.torch.save(model.state_dict())
    pixels = np.random.default_rng(0).integers(0, 256, (70, 32, 32), dtype=np.uint8)
    again = logits(rebuild(ARCHITECTURE, blob), pixels, PixelConfig(side=32))
    with torch.inference_mode():
        first = model(torch.from_numpy(to_model_input(pixels, PixelConfig(side=32)))).numpy()
    assert np.allclose(again, first, atol=1e-5)


def test_weights_of_another_architecture_are_refused() -> None:
    blob = safetensors.torch.save(
        build_vit(ModelConfig(name=CONFIG.name, kwargs={"depth": 2}), classes=3, side=32).state_dict()
    )
    with pytest.raises(RuntimeError, match=r"blocks\.1"):
        rebuild(ARCHITECTURE, blob)


def test_the_hash_is_over_raw_tensors_in_the_order_of_their_names() -> None:
    one, two = torch.tensor([1.0, 2.0]), torch.tensor([[3.0]])
    expected = hashlib.sha256(one.numpy().tobytes() + two.numpy().tobytes()).hexdigest()
    assert weights_sha256({"b": two, "a": one}) == expected
