"""Which fine-tuned model becomes the champion, and which one a fine-tuning starts from."""

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from cluster.releases.registry import Registry
from jobs.finetune_llm import Arguments, Asker, gate
from jobs.runtime.entry import Halted
from serve.explanation import training_pairs
from serve.explanation.llm import LanguageModelError
from serve.explanation.pass_rate import Audit
from train.llm.registry import BASE_TAG, LlmRegistryError, base_version


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


def test_a_model_that_is_worse_than_the_champion_halts_and_gets_no_alias() -> None:
    kept = registry(v1={}, v2={BASE_TAG: "1"})
    with pytest.raises(Halted, match="passes the checker in 54 of 60 texts, version 1 in 55"):
        gate(kept, "2", "1", asked(55), asked(54))
    assert kept.aliases == {"champion": "1"}


def test_a_model_that_is_as_good_becomes_the_champion() -> None:
    kept = registry(v1={}, v2={BASE_TAG: "1"})
    assert gate(kept, "2", "1", asked(55), asked(55)) == "champion"
    assert kept.aliases == {"champion": "2", "previous": "1"}


def test_a_model_is_asked_once_and_again_only_about_other_findings(folder_store: Any, tmp_path: Path) -> None:
    findings = training_pairs.unseen(3, seed=0)
    asker = Asker(store=folder_store, findings=findings, threads=1)
    folder_store.put_json("checkpoints", f"audits/bundles/a/{asker._question()}.json", vars(asked(55)))
    assert asker.ask("bundles/a", tmp_path, "before") == asked(55)
    for other in (replace(asker, findings=findings[:2]), asker):
        key = "bundles/b" if other is asker else "bundles/a"
        with pytest.raises(LanguageModelError, match="is no LitGPT checkpoint"):
            other.ask(key, tmp_path, "before")


def test_a_fine_tuning_starts_from_a_model_that_is_none_itself() -> None:
    assert base_version(registry(v1={}, v2={BASE_TAG: "1"}), None) == "1"
    assert base_version(registry(v1={}, v2={BASE_TAG: "1"}), "2") == "2"
    with pytest.raises(LlmRegistryError, match=r"run `python -m jobs\.fetch_llm` first"):
        base_version(registry(), None)


def test_a_comparison_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="unseen must be at least 1, got 0"):
        Arguments(unseen=0)
