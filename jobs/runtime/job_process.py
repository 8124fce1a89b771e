"""A job as a process of its own, whose progress is read while it runs."""

import json
import subprocess
import threading
from dataclasses import dataclass, field
from typing import Any

from cluster import progress
from jobs.runtime.entry import JobError


def last_line(what: str, code: int, lines: list[str]) -> dict[str, Any]:
    """Return the last line of a job that ended.

    Raises:
        JobError: it failed, or wrote none.
    """
    written = [line for line in lines if line.startswith('{"job"')]  # Ray may say something after it
    if code != 0 or not written:
        raise JobError(f"{what} ended with {code}: {' | '.join(lines[-5:])}")
    report: dict[str, Any] = json.loads(written[-1])
    return report


@dataclass
class JobProcess:
    """`python -m jobs.train`, or another job, as a process whose steps are read while it runs."""

    process: "subprocess.Popen[str]"
    name: str = "jobs.train"
    lines: list[str] = field(default_factory=list)
    step: int = 0
    steps: int = 0
    moved: threading.Condition = field(default_factory=threading.Condition)
    ended: bool = False
    reader: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    def _read(self) -> None:
        with self.process as process:
            assert process.stdout is not None
            for line in process.stdout:
                self.lines.append(line.rstrip())
                step = progress.parse(line)
                if step is not None and step.stage == "train" and step.total > 1:
                    with self.moved:
                        self.step, self.steps = step.done, step.total
                with self.moved:
                    self.moved.notify_all()
        with self.moved:
            self.ended = True
            self.moved.notify_all()

    def wait_for_step(self, step: int) -> bool:
        """Wait; returns False if the job ended first."""
        with self.moved:
            self.moved.wait_for(lambda: self.ended or self.step >= step)
            return not self.ended

    def wait_for_line(self, text: str) -> bool:
        """Wait for a line that has this text; returns False if the job ended first."""
        with self.moved:
            self.moved.wait_for(lambda: self.ended or any(text in line for line in self.lines))
            return not self.ended

    def report(self) -> dict[str, Any]:
        self.reader.join()
        return last_line(self.name, self.process.returncode, self.lines)
