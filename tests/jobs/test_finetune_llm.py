"""Which fine-tuned model becomes the champion, and which one a fine-tuning starts from."""

from typing import Any, cast

import pytest

from cluster.registry import Registry
from jobs.entry import Halted, JobError
from jobs.finetune_llm import BASE_TAG, Arguments, base_version, gate
from serve.explanation_audit import Audit


class Remembering:
    """A registry in memory."""

    def __init__(self, versions: dict[str, dict[str, str]]) -> None:
        self.kept = versions
        self.aliases: dict[str, str] = {"champion": "1"}

    def versions(self, model: str) -> list[str]:
        return list(self.kept)

    def tags(self, model: str, version: str) -> dict[str, str]:
        return self.kept[version]

    def set_tags(self, model: str, version: str, tags: dict[str, str]) -> None:
        self.kept[version] |= tags

    def version_by_alias(self, model: str, alias: str) -> str | None:
        return self.aliases.get(alias)

    def set_alias(self, model: str, alias: str, version: str) -> None:
        self.aliases[alias] = version


def registry(**versions: dict[str, str]) -> Any:
    return cast(Registry, Remembering({name.removeprefix("v"): tags for name, tags in versions.items()}))


def asked(passing: int) -> Audit:
    return Audit(findings=60, passing=passing, problems={})


def test_a_model_that_is_worse_halts_and_gets_no_alias() -> None:
    kept = registry(v1={}, v2={BASE_TAG: "1"})
    with pytest.raises(Halted, match="passes the checker in 54 of 60 texts, before it was 55"):
        gate(kept, "2", asked(55), asked(54), promote=True)
    assert kept.aliases == {"champion": "1"}
    assert kept.kept["2"]["passing"] == "0.9000"


def test_a_model_that_is_as_good_becomes_the_champion_when_it_is_to() -> None:
    kept = registry(v1={}, v2={BASE_TAG: "1"})
    assert gate(kept, "2", asked(55), asked(55), promote=True) == "champion"
    assert kept.aliases == {"champion": "2", "previous": "1"}


def test_without_promote_nobody_is_replaced() -> None:
    kept = registry(v1={}, v2={BASE_TAG: "1"})
    assert gate(kept, "2", asked(10), asked(60), promote=False) is None
    assert kept.aliases == {"champion": "1"}


def test_a_fine_tuning_starts_from_a_model_that_is_none_itself() -> None:
    assert base_version(registry(v1={}, v2={BASE_TAG: "1"}), None) == "1"
    assert base_version(registry(v1={}, v2={BASE_TAG: "1"}), "2") == "2"
    with pytest.raises(JobError, match=r"run `python -m jobs\.fetch_llm` first"):
        base_version(registry(), None)


def test_a_comparison_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="unseen must be at least 1, got 0"):
        Arguments(unseen=0)
