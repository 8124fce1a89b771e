"""Which fine-tuned model becomes the champion, and which one a fine-tuning starts from."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs.finetune_llm import Arguments, Asker, gate
from jobs.runtime.entry import Halted
from serve.explanation import training_pairs
from serve.explanation.llm import LanguageModelError
from tests.train.llm.registries import asked, registry
from train.llm.registry import BASE_TAG


def test_a_model_that_is_worse_than_the_champion_halts_and_gets_no_alias() -> None:
    kept = registry(v1={}, v2={BASE_TAG: "1"})
    with pytest.raises(Halted, match="passes the checker in 54 of 60 texts, version 1 in 55"):
        gate(kept, "2", "1", asked(55), asked(54))
    assert kept.aliases == {"champion": "1"}


def test_a_model_is_asked_once_and_again_only_about_other_findings(folder_store: Any, tmp_path: Path) -> None:
    findings = training_pairs.unseen(3, seed=0)
    asker = Asker(store=folder_store, findings=findings, threads=1)
    folder_store.put_json("checkpoints", f"audits/bundles/a/{asker._question()}.json", vars(asked(55)))
    assert asker.ask("bundles/a", tmp_path, "before") == asked(55)
    for other in (replace(asker, findings=findings[:2]), asker):
        key = "bundles/b" if other is asker else "bundles/a"
        with pytest.raises(LanguageModelError, match="is no LitGPT checkpoint"):
            other.ask(key, tmp_path, "before")


def test_a_comparison_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="unseen must be at least 1, got 0"):
        Arguments(unseen=0)
