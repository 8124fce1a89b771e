"""A submitted job is followed by its log."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from jobs.runtime.console import Console
from jobs.runtime.submit import _follow


class Jobs:
    """A job server with one job that has ended."""

    def __init__(self, *chunks: str) -> None:
        self.chunks = chunks

    async def tail_job_logs(self, submission_id: str) -> AsyncIterator[str]:
        for chunk in self.chunks:
            yield chunk

    def get_job_status(self, submission_id: str) -> Any:
        return SimpleNamespace(is_terminal=lambda: True)


def followed(folder: Path, *chunks: str) -> tuple[dict[str, Any], list[str]]:
    jobs: Any = Jobs(*chunks)
    with Console(folder / "log") as console:
        report = asyncio.run(_follow(jobs, "raysubmit_1", console))
    return report, (folder / "log").read_text().splitlines()


def test_steps_become_bars_and_the_last_line_is_the_report(tmp_path: Path) -> None:
    report, log = followed(tmp_path, "[etl] 1/2 blocks\nhello\n", '{"job": "etl", "status": "ok"}\n')
    assert report == {"job": "etl", "status": "ok"}
    assert log == ["[etl] 1/2 blocks", "hello", '{"job": "etl", "status": "ok"}']


def test_a_job_without_a_report_tells_its_last_line(tmp_path: Path) -> None:
    report, _ = followed(tmp_path, "Killed\n", "\n")
    assert report["error"] == "the job ended without a report; its last line was: Killed"
