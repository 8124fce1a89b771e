"""Bring a version in front of users step by step, and look after it.

Verbs: start, status, promote, pause, resume, rollback, history. `python -m jobs.rollout start --version 7` returns at
once; the controller goes on by itself. `rollback --to 5` makes any earlier registered version the champion, at once.
"""

import sys
import time
from dataclasses import dataclass
from typing import Any, Literal, get_args

from cluster import progress
from cluster.database import connect
from cluster.registry import VIT
from cluster.settings import Settings
from jobs.runtime import entry
from serve import operator_calls, rollouts
from serve.controller import summary
from serve.rollout import Rollout, Wish

Verb = Literal["start", "status", "promote", "pause", "resume", "rollback", "history"]
ACTOR = "jobs.rollout"
LOOK_S = 1.0


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
        one, _ = operator_calls.begin(
            settings,
            model=arguments.model,
            version=arguments.version,
            steps=parse_steps(arguments.steps),
            actor=ACTOR,
        )
    elif arguments.verb == "rollback" and arguments.to is not None:
        one, _ = operator_calls.begin(
            settings, model=arguments.model, version=arguments.to, steps="at_once", back=True, actor=ACTOR
        )
    else:
        one = _asked(settings, arguments)
    return _told(settings, one, arguments)


def parse_steps(wanted: str | None) -> Any:
    if wanted is None or wanted[:1].isalpha():
        return wanted
    try:
        return [float(one) for one in wanted.split(",")]
    except ValueError as error:
        raise entry.JobError(f"--steps takes a name or shares such as 0,0.05,0.5,1, got {wanted}") from error


def _asked(settings: Settings, arguments: Arguments) -> Rollout:
    with connect(settings.database_url) as connection:
        one = (
            rollouts.get(connection, arguments.id)
            if arguments.id is not None
            else next((one for one in rollouts.newest(connection) if one.model == arguments.model), None)
        )
        if one is None:
            raise entry.JobError(
                f"there was no rollout of {arguments.model} yet: `python -m jobs.rollout start`"
            )
        if arguments.verb in get_args(Wish):
            wish: Any = arguments.verb
            return rollouts.wish(connection, one.id, wish, actor=ACTOR)
        return one


def _told(settings: Settings, one: Rollout, arguments: Arguments) -> dict[str, Any]:
    """Wait as long as asked for, then the fields of the last line."""
    ends_at, said = time.monotonic() + arguments.wait_s, ""
    with connect(settings.database_url) as connection:
        while True:
            one = rollouts.get(connection, one.id)
            found = summary(one, operator_calls.weights_of(connection, one))
            now = f"{one.state}: {found['why'] or 'its replicas are started'}"
            if arguments.wait_s and now != said:
                said = now
                progress.report("rollout", one.step + 1, len(one.steps), now)
            if one.ended_at is not None or time.monotonic() >= ends_at:
                break
            time.sleep(LOOK_S)
        if arguments.verb == "history":
            found["history"] = [
                {**event, "at": event["at"].isoformat()} for event in rollouts.events(connection, one.id)
            ]
    return found


def _argv() -> list[str]:
    """The verb may stand first, without a flag."""
    argv = sys.argv[1:]
    return ["--verb", *argv] if argv and not argv[0].startswith("-") else argv


if __name__ == "__main__":
    entry.run("rollout", lambda: work(entry.parse(Arguments, "rollout", _argv())))
