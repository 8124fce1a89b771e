"""Shows how far the pipeline is: one bar a stage with a note of what happens now.

On a terminal the bars move; elsewhere each stage says when it starts, how far it is now and then, and when it
ends. Everything else goes to a log file whose path the summary names.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from rich.console import Console as Rich
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from cluster.progress import Step

FILE_WIDTH = 150
"""Characters of a line where the output is no terminal."""
QUIET_S = 15.0
"""Seconds between two lines of the same stage where the output is no terminal."""


class Console:
    def __init__(self, log_path: Path) -> None:
        self.log_path = log_path
        log_path.parent.mkdir(parents=True, exist_ok=True)
        self._log = log_path.open("a", encoding="utf-8")
        self._rich = Rich(highlight=False)
        if not self._rich.is_terminal:
            self._rich = Rich(highlight=False, width=FILE_WIDTH)
        self._bars = Progress(
            TextColumn("{task.description:>9}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
            console=self._rich,
            disable=not self._rich.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}
        self._printed_at: dict[str, float] = {}
        self._started_at: dict[str, float] = {}

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bars.stop()
        self._log.close()

    def say(self, line: str) -> None:
        """Print a line, and log it."""
        self._rich.print(line, markup=False, soft_wrap=True)
        self.log(line)

    def log(self, line: str) -> None:
        self._log.write(line + "\n")
        self._log.flush()

    def step(self, step: Step) -> None:
        now = time.monotonic()
        started_at = self._started_at.setdefault(step.stage, now)
        self.log(f"[{step.stage}] {step.done}/{step.total} {step.note}")
        if self._rich.is_terminal:
            if step.stage not in self._tasks:
                self._tasks[step.stage] = self._bars.add_task(step.stage, total=step.total, note="")
            self._bars.update(
                self._tasks[step.stage], completed=step.done, total=step.total, note=step.note[:60]
            )
            return
        finished = step.done >= step.total
        if finished or now - self._printed_at.get(step.stage, -QUIET_S) >= QUIET_S:
            self._printed_at[step.stage] = now
            line = f"{step.stage:>9} {step.done}/{step.total} {now - started_at:5.0f} s  {step.note}"
            self._rich.print(line, markup=False, soft_wrap=True)

    def stage(self, stage: str, done: int, total: int, note: str = "") -> None:
        self.step(Step(stage=stage, done=done, total=total, note=note))

    def table(self, title: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        table = Table(title=title, title_justify="left")
        for nth, name in enumerate(header):
            last = nth == len(header) - 1
            table.add_column(
                name, overflow="fold", no_wrap=not last, justify="left" if nth == 0 or last else "right"
            )
        for row in rows:
            table.add_row(*(str(cell) for cell in row))
        self._rich.print(table)
