"""One line of what happens now: `[stage] done/total note`, readable by people and by `parse`.

Workers and drivers write such lines to standard output, Ray forwards them, and whoever follows the job
draws a bar from them. Knows nothing of how they are drawn.
"""

import re
import sys
from dataclasses import dataclass

LINE = re.compile(r"\[(?P<stage>[a-z_]+)\] (?P<done>\d+)/(?P<total>\d+)(?: (?P<note>.*))?$")


@dataclass(frozen=True, kw_only=True)
class Step:
    stage: str
    done: int
    total: int
    note: str


def report(stage: str, done: int, total: int, note: str = "") -> None:
    """Say how far a stage is; `note` is one short phrase, free of patient data."""
    sys.stdout.write(f"[{stage}] {done}/{total} {note}".rstrip() + "\n")
    sys.stdout.flush()


def parse(line: str) -> Step | None:
    """The step in a log line (Ray may have put the worker's name before it), None for any other line."""
    match = LINE.search(line.rstrip())
    if match is None:
        return None
    return Step(
        stage=match["stage"], done=int(match["done"]), total=int(match["total"]), note=match["note"] or ""
    )
