"""Language models in the registry."""

import pytest

from jobs.finetune_llm import gate
from tests.train.llm.registries import asked, registry
from train.llm.registry import BASE_TAG, LlmRegistryError, base_version


def test_a_model_that_is_as_good_becomes_the_champion() -> None:
    kept = registry(v1={}, v2={BASE_TAG: "1"})
    assert gate(kept, "2", "1", asked(55), asked(55)) == "champion"
    assert kept.aliases == {"champion": "2", "previous": "1"}


def test_a_fine_tuning_starts_from_a_model_that_is_none_itself() -> None:
    assert base_version(registry(v1={}, v2={BASE_TAG: "1"}), None) == "1"
    assert base_version(registry(v1={}, v2={BASE_TAG: "1"}), "2") == "2"
    with pytest.raises(LlmRegistryError, match=r"run `python -m jobs\.fetch_llm` first"):
        base_version(registry(), None)
