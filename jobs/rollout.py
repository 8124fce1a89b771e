"""Bring a version in front of users step by step, and look after it.

Verbs: start, status, promote, pause, resume, rollback, history. `python -m jobs.rollout start --version 7` returns at
once; the controller goes on by itself. `rollback --to 5` makes any earlier registered version the champion, at once.
"""

import sys
from dataclasses import dataclass
from typing import Any, Literal, get_args

from cluster import progress
from cluster.database import connect
from cluster.releases.registry import VIT
from cluster.settings import Settings
from jobs.runtime import entry
from serve.control import rollout_store
from serve.control.plan import OperatorCommand, Rollout
from serve.control.rollout_view import watch
from serve.control.start import start_rollout

Verb = Literal["start", "status", "promote", "pause", "resume", "rollback", "history"]
ACTOR = "jobs.rollout"


@dataclass(frozen=True, kw_only=True)
class Arguments:
    verb: Verb = "status"
    model: str = VIT
    version: str | None = None
    """start: which to bring in front of users."""
    steps: str | None = None
    """start: canary, blue_green, at_once, or shares such as 0,0.05,0.5,1; default: the environment's."""
    id: int | None = None
    """Which rollout; default: the model's newest."""
    to: str | None = None
    """rollback: the earlier version that is to be the champion, at once; default: the one before."""
    wait_s: float = 0.0
    """start, promote, rollback: wait so long for the end of the rollout, and say what happens on the way."""

    def __post_init__(self) -> None:
        takes = {
            "start": ("version", "steps", "wait_s"),
            "promote": ("id", "wait_s"),
            "rollback": ("id", "to", "wait_s"),
        }.get(self.verb, ("id",))
        given = [name for name in ("version", "steps", "id", "to") if getattr(self, name) is not None]
        given += ["wait_s"] if self.wait_s else []
        if unused := [f"--{name}" for name in given if name not in takes]:
            raise ValueError(f"{self.verb} takes no {', '.join(unused)}")
        if self.id is not None and self.to is not None:
            raise ValueError("rollback takes --id, whose rollout is taken back, or --to, a version; not both")


def work(arguments: Arguments) -> dict[str, Any]:
    settings = Settings.from_env()
    if arguments.verb == "start":
        if arguments.version is None:
            raise entry.JobError("start needs a --version")
        rollout, _ = start_rollout(
            settings,
            model=arguments.model,
            version=arguments.version,
            steps=parse_steps(arguments.steps),
            actor=ACTOR,
        )
    elif arguments.verb == "rollback" and arguments.to is not None:
        rollout, _ = start_rollout(
            settings, model=arguments.model, version=arguments.to, steps="at_once", back=True, actor=ACTOR
        )
    else:
        rollout = _command(settings, arguments)
    view = watch(settings, rollout.id, wait_s=arguments.wait_s, report=_report)
    history = {"history": _history(settings, rollout.id)} if arguments.verb == "history" else {}
    return {**view, **history}


def parse_steps(wanted: str | None) -> Any:
    if wanted is None or wanted[:1].isalpha():
        return wanted
    try:
        return [float(share) for share in wanted.split(",")]
    except ValueError as error:
        raise entry.JobError(f"--steps takes a name or shares such as 0,0.05,0.5,1, got {wanted}") from error


def _command(settings: Settings, arguments: Arguments) -> Rollout:
    """Look up the rollout, and leave the verb with the controller where it is a command."""
    with connect(settings.database_url) as connection:
        if arguments.id is not None:
            rollout = rollout_store.get(connection, arguments.id)
        else:
            newest = [row for row in rollout_store.newest(connection) if row.model == arguments.model]
            if not newest:
                raise entry.JobError(
                    f"there was no rollout of {arguments.model} yet: `python -m jobs.rollout start`"
                )
            rollout = newest[0]
        if arguments.verb in get_args(OperatorCommand):
            command: Any = arguments.verb
            return rollout_store.request(connection, rollout.id, command, actor=ACTOR)
        return rollout


def _report(rollout: Rollout, line: str) -> None:
    progress.report("rollout", rollout.step + 1, len(rollout.steps), line)


def _history(settings: Settings, rollout_id: int) -> list[dict[str, Any]]:
    with connect(settings.database_url) as connection:
        events = rollout_store.events(connection, rollout_id)
    return [{**event, "at": event["at"].isoformat()} for event in events]


def _argv() -> list[str]:
    """Read the command line, in which the verb may stand first, without a flag."""
    argv = sys.argv[1:]
    return ["--verb", *argv] if argv and not argv[0].startswith("-") else argv


if __name__ == "__main__":
    entry.run("rollout", lambda: work(entry.parse(Arguments, "rollout", _argv())))
