"""The language model of one version, as a stream of verified events, for the explainer's replica.

Generation is CPU-bound and synchronous, so it runs in a thread; events cross to the event loop one by one.
"""

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from serve.explanation.explanation import MAX_NEW_TOKENS, Finding, explain, prompt
from serve.explanation.llm import LanguageModel

DEADLINE_S = 45.0
"""Seconds for one generation, waiting for another one included; a text that is cut off falls back to the template."""
END = None


class Explainer:
    """Loads and warms the model; ready when the constructor returns."""

    def __init__(self, directory: Path, *, threads: int = 2, device: str = "cpu") -> None:
        self.model = LanguageModel.load(directory, threads=threads, device=device)
        self.model.warm_up()

    async def explain(self, finding: Finding) -> AsyncIterator[dict[str, Any]]:
        """Stream events as `serve.explanation.explanation.Event.as_dict` returns them, the last one `done`.

        When the caller disconnects, generation stops at its next sentence.
        """
        loop = asyncio.get_running_loop()
        events: asyncio.Queue[dict[str, Any] | Exception | None] = asyncio.Queue()
        gone = threading.Event()

        def send(event: dict[str, Any] | Exception | None) -> None:
            loop.call_soon_threadsafe(events.put_nowait, event)

        def write() -> None:
            try:
                pieces = self.model.generate(
                    prompt(finding), max_new_tokens=MAX_NEW_TOKENS, deadline_s=DEADLINE_S
                )
                for event in explain(finding, pieces, model=self.model.name):
                    send(event.as_dict())
                    if gone.is_set():
                        return
            except Exception as error:  # noqa: BLE001 - crosses the thread and is raised on the other side
                send(error)
            finally:
                send(END)

        writer = loop.run_in_executor(None, write)
        try:
            while (event := await events.get()) is not END:
                if isinstance(event, Exception):
                    raise event
                yield event
        finally:
            gone.set()
            await writer
