"""A language model's text crosses from its thread to the event loop as verified events."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serve.explanation.explainer import Explainer
from serve.explanation.finding import template_text
from serve.explanation.llm import LanguageModel
from tests.serve.explanation.findings import BACTERIAL


class Speaking:
    name = "small"

    def __init__(self, *pieces: str | Exception) -> None:
        self.pieces = pieces

    def warm_up(self) -> None:
        """Nothing to warm."""

    def generate(self, prompt: str, **_: Any) -> Iterator[str]:
        for piece in self.pieces:
            if isinstance(piece, Exception):
                raise piece
            yield piece


def events(monkeypatch: pytest.MonkeyPatch, *pieces: str | Exception) -> list[dict[str, Any]]:
    monkeypatch.setattr(LanguageModel, "load", lambda *_, **__: Speaking(*pieces))
    explainer = Explainer(Path("nowhere"))

    async def listen() -> list[dict[str, Any]]:
        return [event async for event in explainer.explain(BACTERIAL)]

    return asyncio.run(listen())


def test_the_last_event_is_done_with_the_whole_text(monkeypatch: pytest.MonkeyPatch) -> None:
    *shown, done = events(monkeypatch, template_text(BACTERIAL))
    assert {event["event"] for event in shown} == {"sentence"}
    assert (done["event"], done["explanation"]["model"]) == ("done", "small")
    assert done["explanation"]["fallback"] is False


def test_what_the_model_raises_in_its_thread_reaches_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ZeroDivisionError, match="of the model"):
        events(monkeypatch, ZeroDivisionError("of the model"))
