from dataclasses import replace

import pytest

from train.config import AugmentConfig, ModelConfig, OptimConfig, TrainConfig, TrainConfigError


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
        ({"batch_size": 2, "num_workers": 3}, "every worker needs an image"),
        ({"label_smoothing": 1.0}, "label_smoothing"),
        ({"class_balance": -0.1}, "class_balance"),
        ({"precision": "int8"}, "precision"),
        ({"max_failures": -2}, "max_failures"),
        ({"checkpoint_every_steps": -1}, "checkpoint_every_steps"),
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
