"""Progress lines of jobs: `[stage] done/total note`, readable by people and by `parse`.

Workers and drivers write such lines to standard output, Ray forwards them, and `jobs.runtime.console`
draws bars from them. Knows nothing of how they are drawn: rich draws only in the terminal that follows the job.
"""

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass

OnProgress = Callable[[int, int, str], None]
"""Takes what is done, the total, and a short note, from the thread that called the work."""
LINE = re.compile(r"\[(?P<stage>[a-z_]+)\] (?P<done>\d+)/(?P<total>\d+)(?: (?P<note>.*))?$")


@dataclass(frozen=True, kw_only=True)
class Step:
    stage: str
    done: int
    total: int
    note: str


def silent(done: int, total: int, note: str) -> None:
    """Report nothing: the default of work that takes an `OnProgress`."""


def report(stage: str, done: int, total: int, note: str = "") -> None:
    """Print how far a stage is; `note` is one short phrase, free of patient data."""
    sys.stdout.write(f"[{stage}] {done}/{total} {note}".rstrip() + "\n")
    sys.stdout.flush()


def parse(line: str) -> Step | None:
    """Parse the step in a log line, before which Ray may have put the worker's name; None for any other line."""
    match = LINE.search(line.rstrip())
    if match is None:
        return None
    return Step(
        stage=match["stage"], done=int(match["done"]), total=int(match["total"]), note=match["note"] or ""
    )
