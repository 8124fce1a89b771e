"""Settings of a fine-tuning that cannot be are refused where they are made, with what to take instead."""

import json
from typing import Any

import pytest

from train.config_checks import TrainConfigError
from train.llm import cost_table
from train.llm.config import LlmConfig, LoraConfig
from train.runs.run_store import default_name


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"method": "qlora"}, "needs a GPU, as NF4 is there on CUDA only: take method lora"),
        ({"method": "qlora", "use_gpu": True}, "qlora computes in bfloat16"),
        ({"method": "prefix"}, "method is one of full, lora, qlora, got 'prefix'"),
        ({"precision": "float16"}, "precision is one of float32, bfloat16"),
        ({"batch_size": 2, "num_workers": 3}, "num_workers 3 is more than the batch_size 2"),
        ({"microbatch_size": 0}, "microbatch_size must be at least 1, got 0"),
        ({"max_seq_length": 8}, "max_seq_length must be at least 16"),
        ({"learning_rate": 0.0}, "^learning_rate must be positive, got 0.0"),
        ({"warmup_share": 1.0}, "^warmup_share must lie in"),
    ],
)
def test_impossible_settings_are_named(settings: dict[str, Any], why: str) -> None:
    with pytest.raises(TrainConfigError, match=why):
        LlmConfig(**settings)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"targets": ("query", "gate")}, "lora.targets are some of query, .* got gate"),
        ({"targets": ()}, "got none"),
        ({"r": 0}, "lora.r must be at least 1"),
        ({"dropout": 1.0}, "lora.dropout must lie in"),
    ],
)
def test_impossible_adapters_are_named(settings: dict[str, Any], why: str) -> None:
    with pytest.raises(TrainConfigError, match=why):
        LoraConfig(**settings)


def test_a_configuration_comes_back_from_its_plain_values() -> None:
    config = LlmConfig(method="full", batch_size=8, lora=LoraConfig(r=4, targets=("mlp",)))
    assert LlmConfig.from_dict(config.as_dict()) == config
    assert json.loads(json.dumps(config.as_dict())) == config.as_dict()


def test_the_amount_of_machine_is_no_part_of_what_is_learned() -> None:
    assert LlmConfig(num_workers=2, microbatch_size=2).fingerprint == LlmConfig().fingerprint
    assert LlmConfig(learning_rate=2e-3).fingerprint != LlmConfig().fingerprint


def test_stored_runs_keep_their_fingerprints_and_names() -> None:
    """A run that was begun by earlier code is found by these."""
    config = LlmConfig(
        method="full", batch_size=8, lora=LoraConfig(r=4, targets=("mlp",)), seed=3, num_workers=2
    )
    assert LlmConfig().fingerprint == "156c45567e706112"
    assert config.fingerprint == "20e1c2b4b31c80c1"
    assert default_name(config, "0123456789ab", kind="llm") == "llm-01234567-20e1c2b4"


@pytest.mark.parametrize(("micro", "workers", "parts"), [(1, 1, 4), (4, 1, 1), (1, 2, 2), (3, 1, 2)])
def test_accumulation_follows_from_the_batch_the_microbatch_and_the_workers(
    micro: int, workers: int, parts: int
) -> None:
    assert LlmConfig(batch_size=4, microbatch_size=micro).accumulation(workers) == parts


def test_the_table_has_each_method_precision_and_accumulation_once() -> None:
    found = [
        (one.method, one.precision, one.accumulation(1))
        for one in cost_table.settings(LlmConfig(batch_size=4))
    ]
    assert len(set(found)) == len(found) == 8
    on_gpu = cost_table.settings(LlmConfig(batch_size=4, use_gpu=True))
    assert [one.precision for one in on_gpu if one.method == "qlora"] == ["bfloat16", "bfloat16"]
