import torch

from train.config import ModelConfig, OptimConfig
from train.vit.model import build_vit, parameter_groups, timm_kwargs


def test_the_default_is_a_small_vit_for_single_channel_images() -> None:
    model = build_vit(ModelConfig(), classes=10, side=96).eval()
    assert model(torch.zeros(2, 1, 96, 96)).shape == (2, 10)


def test_a_vit_with_a_convolutional_stem_is_taken_as_well() -> None:
    kwargs = {"distilled": False, "embed_dim": [32, 48, 64], "num_heads": [1, 2, 2], "depth": [1, 1, 1]}
    model = build_vit(ModelConfig(name="levit_128s", kwargs=kwargs), classes=10, side=64).eval()
    assert model(torch.zeros(2, 1, 64, 64)).shape == (2, 10)


def test_depth_is_part_of_the_architecture_and_dropout_is_not() -> None:
    config = ModelConfig(name="vit_tiny_patch16_224", kwargs={"depth": 2}, drop_rate=0.1, drop_path_rate=0.1)
    assert len(build_vit(config, classes=3, side=32).blocks) == 2
    assert timm_kwargs(config, classes=3, side=32) == {
        "in_chans": 1,
        "num_classes": 3,
        "img_size": 32,
        "depth": 2,
    }


def test_vectors_and_position_do_not_decay() -> None:
    model = build_vit(ModelConfig(name="vit_tiny_patch16_224", kwargs={"depth": 1}), classes=3, side=32)
    decaying, still = parameter_groups(model, OptimConfig(weight_decay=0.1))
    assert (decaying["weight_decay"], still["weight_decay"]) == (0.1, 0.0)
    assert all(one.ndim >= 2 for one in decaying["params"])
    assert any(one is model.pos_embed for one in still["params"])
    assert len(decaying["params"]) + len(still["params"]) == len(list(model.parameters()))


def test_layer_decay_leaves_the_head_its_rate_and_lowers_that_of_each_layer_below() -> None:
    model = build_vit(ModelConfig(name="vit_tiny_patch16_224", kwargs={"depth": 2}), classes=3, side=32)
    groups = parameter_groups(model, OptimConfig(weight_decay=0.1, layer_decay=0.5))
    scale = {id(one): group["lr_scale"] for group in groups for one in group["params"]}
    decay = {id(one): group["weight_decay"] for group in groups for one in group["params"]}
    assert scale[id(model.head.weight)] == 1.0
    assert scale[id(model.blocks[1].mlp.fc1.weight)] == 0.5
    assert scale[id(model.blocks[0].mlp.fc1.weight)] == 0.25
    assert scale[id(model.patch_embed.proj.weight)] == 0.125
    assert decay[id(model.pos_embed)] == decay[id(model.head.bias)] == 0
    assert decay[id(model.head.weight)] == 0.1
    assert len(scale) == len(list(model.parameters()))
