"""The converted language model: sound weights, a stream that is its text, deadlines, and true explanations."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from serve.explanation.checker import check
from serve.explanation.explanation import MAX_NEW_TOKENS, explain
from serve.explanation.finding import Finding, prompt
from serve.explanation.llm import LanguageModel, LanguageModelError
from train.llm.base_weights import CONFIG_NAME, GGUF_SHA256, LanguageModelWeightsError, convert, verify

MEDICAL = (
    "Pneumonia is an infection that inflames the air sacs in one or both lungs. The air sacs may fill with fluid "
    "or pus, causing cough with phlegm, fever, chills, and difficulty breathing. A variety of organisms, "
    "including bacteria, viruses and fungi, can cause pneumonia. A chest X-ray helps the doctor to see where "
    "the infection is."
)
FINDING = Finding(
    label="tuberculosis",
    confidence=0.914,
    abstained=False,
    prediction_set=("tuberculosis",),
    triage="urgent",
)


@pytest.fixture(scope="session")
def model(llm_directory: Path) -> Iterator[LanguageModel]:
    before = torch.get_num_threads()
    loaded = LanguageModel.load(llm_directory, threads=1)
    loaded.warm_up()
    yield loaded
    torch.set_num_threads(before)


def test_the_checkpoint_says_where_it_comes_from_and_nothing_in_it_is_pickled(llm_directory: Path) -> None:
    card = json.loads((llm_directory / "card.json").read_text())
    assert (card["base"], card["license"], card["gguf_sha256"]) == (CONFIG_NAME, "Apache-2.0", GGUF_SHA256)
    assert {path.name for path in llm_directory.iterdir()} == {*card["files"], "card.json"}
    assert {path.suffix for path in llm_directory.iterdir()} == {".safetensors", ".json", ".yaml"}


def test_a_second_conversion_finds_the_first(llm_directory: Path) -> None:
    before = (llm_directory / "model.safetensors").stat()
    assert convert(llm_directory) == llm_directory
    assert (llm_directory / "model.safetensors").stat() == before


def test_a_damaged_checkpoint_is_not_taken_for_a_finished_one(llm_directory: Path, tmp_path: Path) -> None:
    for path in llm_directory.iterdir():
        (tmp_path / path.name).symlink_to(path)
    assert verify(tmp_path)["model"] == "xray-llm"
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(LanguageModelWeightsError, match=r"tokenizer\.json is missing or damaged: delete"):
        convert(tmp_path)


def test_perplexity_of_a_medical_paragraph_shows_unpermuted_rotary_weights(model: LanguageModel) -> None:
    assert 8 < model.perplexity(MEDICAL) < 16  # 12.8; about 60 with llama.cpp's order of query and key rows


def test_the_pieces_of_the_stream_are_the_text_that_one_by_one_decoding_gives(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    streamed = list(model.generate(prompt(FINDING), max_new_tokens=24, deadline_s=60))
    assert len(streamed) > 10
    monkeypatch.setattr("serve.explanation.llm.GUESSES", 0)
    assert "".join(model.generate(prompt(FINDING), max_new_tokens=24, deadline_s=60)) == "".join(streamed)


def test_a_text_never_exceeds_its_tokens(model: LanguageModel) -> None:
    for most in (1, 6):
        said = "".join(model.generate(prompt(FINDING), max_new_tokens=most, deadline_s=60))
        assert len(model._tokenizer.encode(said, bos=False)) <= most


def test_a_real_explanation_is_the_models_own_and_true(model: LanguageModel) -> None:
    pieces = model.generate(prompt(FINDING), max_new_tokens=MAX_NEW_TOKENS, deadline_s=60)
    *_, last = explain(FINDING, pieces, model=model.name)
    assert last.explanation is not None
    assert (last.explanation.fallback, last.explanation.model) == (False, CONFIG_NAME)
    assert check(last.explanation.text, FINDING) == []


def test_the_deadline_ends_the_text(model: LanguageModel) -> None:
    """By the model's own pace: a wall-clock bound would fail wherever the machine is busy."""
    said = list(model.generate("Tell me a long story.", max_new_tokens=500, deadline_s=1.0))
    assert 0 < len(said) < 250
    assert list(model.generate("Hello", max_new_tokens=5, deadline_s=0.0)) == []


def test_a_caller_who_leaves_early_lets_the_next_one_in(model: LanguageModel) -> None:
    first = iter(model.generate("Tell me a long story.", max_new_tokens=200, deadline_s=60))
    assert next(first)
    waiting = model.generate("Hello", max_new_tokens=2, deadline_s=0.2)
    assert list(waiting) == [], "the model answers one caller at a time"
    first.close()  # type: ignore[attr-defined]
    assert list(model.generate("Hello", max_new_tokens=2, deadline_s=60))


def test_two_callers_at_once_get_what_each_would_get_alone(model: LanguageModel) -> None:
    prompts = ["Hello", prompt(FINDING)]
    alone = ["".join(model.generate(one, max_new_tokens=12, deadline_s=60)) for one in prompts]
    together: dict[str, str] = {}

    def ask(one: str) -> None:
        together[one] = "".join(model.generate(one, max_new_tokens=12, deadline_s=60))

    threads = [threading.Thread(target=ask, args=(one,)) for one in prompts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [together[one] for one in prompts] == alone


def test_a_prompt_that_does_not_fit_is_refused_before_any_work(model: LanguageModel) -> None:
    with pytest.raises(LanguageModelError, match="exceed the context of 768"):
        model.generate("word " * 800, max_new_tokens=10, deadline_s=60)


def test_a_directory_without_a_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(LanguageModelError, match="is no LitGPT checkpoint"):
        LanguageModel.load(tmp_path)
