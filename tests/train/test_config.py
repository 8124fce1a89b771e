from dataclasses import replace

import pytest

from train.config import AugmentConfig, ModelConfig, OptimConfig, TrainConfig
from train.config_checks import TrainConfigError


def test_a_configuration_survives_json_shaped_values() -> None:
    config = TrainConfig(
        model=ModelConfig(kwargs={"depth": 3}), optim=OptimConfig(learning_rate=2e-3), epochs=4
    )
    assert TrainConfig.from_dict(config.as_dict()) == config


def test_the_fingerprint_knows_what_is_learned_and_not_on_how_many_machines() -> None:
    config = TrainConfig()
    assert replace(config, num_workers=4, cpus_per_worker=8, max_failures=9).fingerprint == config.fingerprint
    assert replace(config, seed=1).fingerprint != config.fingerprint
    assert replace(config, augment=AugmentConfig(zoom=0)).fingerprint != config.fingerprint


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epochs": 0}, "epochs"),
        ({"batch_size": 2, "num_workers": 3}, "every worker needs a sample"),
        ({"label_smoothing": 1.0}, "label_smoothing"),
        ({"class_balance": -0.1}, "class_balance"),
        ({"precision": "int8"}, "precision"),
        ({"max_failures": -2}, "max_failures"),
        ({"checkpoint_every_steps": -1}, "checkpoint_every_steps"),
        ({"strategy": "horovod"}, "strategy is one of ddp, fsdp, deepspeed"),
        ({"zero_stage": 4}, "zero_stage is one of 1, 2, 3"),
        ({"ema_decay": 1.0}, "ema_decay"),
        ({"memory_share": 0.0}, "memory_share"),
        ({"microbatch_size": -1}, "microbatch_size"),
        (
            {"batch_size": 64, "microbatch_size": 5},
            "64 is no multiple of microbatch_size 5 x num_workers 2 = 10",
        ),
        (
            {"cpu_offload": True, "strategy": "ddp", "use_gpu": True},
            "cpu_offload does not go with strategy ddp",
        ),
        ({"cpu_offload": True, "strategy": "fsdp"}, "cpu_offload needs use_gpu"),
        (
            {"compile": True, "strategy": "deepspeed", "zero_stage": 3},
            "compile does not go with zero_stage 3",
        ),
    ],
)
def test_an_impossible_setting_is_refused_by_name(values: dict[str, float], message: str) -> None:
    with pytest.raises(TrainConfigError, match=message):
        TrainConfig(**values)


def test_impossible_parts_are_refused_by_name() -> None:
    with pytest.raises(TrainConfigError, match="learning_rate"):
        OptimConfig(learning_rate=0)
    with pytest.raises(TrainConfigError, match="drop_path_rate"):
        ModelConfig(drop_path_rate=1.0)
    with pytest.raises(TrainConfigError, match="num_classes"):
        ModelConfig(kwargs={"num_classes": 3})
    with pytest.raises(TrainConfigError, match="rotation_degrees"):
        AugmentConfig(rotation_degrees=-1)
    with pytest.raises(TrainConfigError, match="mixup"):
        AugmentConfig(mixup=-0.1)
    with pytest.raises(TrainConfigError, match="layer_decay"):
        OptimConfig(layer_decay=0)
    with pytest.raises(TrainConfigError, match="start is one of scratch, champion, timm, got 'imagenet'"):
        ModelConfig(start="imagenet")  # type: ignore[arg-type]


def test_an_unknown_key_is_named_with_the_nearest_one() -> None:
    values = TrainConfig().as_dict()
    with pytest.raises(
        TrainConfigError, match=r"no setting optim.learning_rat: did you mean optim.learning_rate"
    ):
        TrainConfig.from_dict({**values, "optim": {"learning_rat": 1e-3}})
    with pytest.raises(TrainConfigError, match=r"there is no setting horsepower$"):
        TrainConfig.from_dict({**values, "horsepower": 3})


def test_fewer_workers_take_more_microbatches_of_the_same_size() -> None:
    config = TrainConfig(batch_size=64, microbatch_size=8, num_workers=4)
    assert config.accumulation() == 2
    assert config.accumulation(2) == 4
    assert config.accumulation(1) == 8
    assert TrainConfig(batch_size=64).accumulation() == 1
