"""The cases of a drill, played with a platform that notes what is asked of it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from jobs.drill import cases
from jobs.drill.platform import UnexpectedError


class Noting:
    def __init__(self, replicas: tuple[int, ...] = ()) -> None:
        self.notes: list[str] = []
        self.clients = SimpleNamespace(rate=4.0)
        self.seen = list(replicas)

    def copy(self, broken: bool = False) -> str:
        self.notes.append("broken copy" if broken else "copy")
        return "7"

    def start(self, version: str, steps: Any = ()) -> str:
        self.notes.append(f"start {version}")
        return "rollout"

    def until(self, rollout: Any, done: Callable[[Any], bool], what: str) -> Any:
        self.notes.append(f"until {what}")
        return rollout

    def wish(self, rollout: Any, wish: str) -> None:
        self.notes.append(wish)

    @contextmanager
    def fault(self, version: str, fault: Any) -> Iterator[None]:
        self.notes.append(f"fault {fault.error_rate}")
        yield
        self.notes.append("no fault")

    def replicas(self) -> int:
        self.notes.append(f"rate {self.clients.rate:.0f}")
        return self.seen.pop(0)


def played(case: Any, platform: Any = None) -> list[str]:
    platform = platform or Noting()
    case(platform)
    notes: list[str] = platform.notes
    return notes


def test_a_version_that_turns_bad_errs_from_its_step_until_it_is_rolled_back() -> None:
    assert played(cases.CASES["bad_at_half"]) == [
        "copy", "start 7", "until 50 %", "fault 0.2", "until the rollback", "no fault",
    ]  # fmt: skip


def test_a_cancelled_version_may_start_again() -> None:
    notes = played(cases.CASES["cancelled_and_restarted"])
    assert notes == ["copy", *(["start 7", "until 10 %", "rollback", "until the rollback"] * 2)]


def test_more_load_is_taken_back_when_another_process_has_started() -> None:
    platform = Noting(replicas=(1, 2, 1))
    assert played(cases.load_step, platform) == ["rate 4", "rate 20", "rate 4"]


def test_processes_that_do_not_come_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cases, "CASE_S", -1.0)
    platform = Noting(replicas=(1, 1, 1))
    with pytest.raises(UnexpectedError, match="more than 1 processes; there are 1"):
        played(cases.load_step, platform)
    assert platform.clients.rate == 4.0
