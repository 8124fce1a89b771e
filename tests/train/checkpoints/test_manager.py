"""One rank in this process; what several ranks decide together is seen in test_fit.py and tests/ray."""

import errno
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.train.checkpoints.stores import Unsteady, content
from train.checkpoints.manager import RunCheckpoints
from train.checkpoints.state import CheckpointError
from train.checkpoints.store import CheckpointStore, Mark, mark_of


def newest(attempt: RunCheckpoints) -> str | None:
    with attempt.newest() as folder:
        return None if folder is None else (folder / "rank-0000.safetensors").read_text()


def steps(store: CheckpointStore) -> list[int]:
    return [mark_of(name).step for name in store.committed()]


def test_a_new_run_has_nothing_to_go_on_from(begin: Callable[..., RunCheckpoints]) -> None:
    assert newest(begin()) is None


def test_the_next_attempt_goes_on_from_the_newest(begin: Callable[..., RunCheckpoints]) -> None:
    first = begin()
    for step in (10, 20):
        first.commit(Mark(step=step), content(f"state {step}"))
        first.flush()
    assert newest(begin()) == "state 20"


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_taken(
    begin: Callable[..., RunCheckpoints], store: Unsteady, caplog: pytest.LogCaptureFixture
) -> None:
    first = begin()
    for step in (10, 20):
        first.commit(Mark(step=step), content(f"state {step}"))
        first.flush()
    damaged = store.committed()[0]
    (Path(store.root) / damaged / "rank-0000.safetensors").write_text("state 21")
    with caplog.at_level(logging.WARNING):
        assert newest(begin()) == "state 10"
    assert [one for one in caplog.messages if damaged in one] == [
        f"checkpoint {damaged} is damaged (rank-0000.safetensors is not what was written): taking the one before it"
    ]


def test_when_all_are_damaged_the_run_ends_in_one_line_and_does_not_begin_anew(
    begin: Callable[..., RunCheckpoints], store: Unsteady
) -> None:
    first = begin()
    first.commit(Mark(step=10), content("state"))
    first.flush()
    (Path(store.root) / store.committed()[0] / "rank-0000.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"none of the 1 checkpoints.*is missing.*--fresh") as caught:
        newest(begin())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "error", [ConnectionError("the server went away"), OSError(errno.ENOSPC, "No space left on device")]
)
def test_a_store_that_takes_nothing_holds_nobody_up_and_gets_the_newest_when_it_is_back(
    begin: Callable[..., RunCheckpoints], store: Unsteady, caplog: pytest.LogCaptureFixture, error: OSError
) -> None:
    attempt = begin()
    store.broken = error
    written: list[int] = []
    with caplog.at_level(logging.WARNING):
        started_at = time.monotonic()
        for step in range(10, 60, 10):
            attempt.commit(
                Mark(step=step), lambda folder, at=step: (content(str(at))(folder), written.append(at))
            )
            time.sleep(0.05)
        assert time.monotonic() - started_at < 2
        assert steps(store) == []
        store.broken = None
        attempt.flush()
    assert steps(store) == [50]
    assert newest(begin()) == "50"
    assert all("training goes on" in one and "\n" not in one for one in caplog.messages)
    assert len(caplog.messages) <= len(set(written))


def test_a_start_waits_for_a_store_that_comes_back(
    begin: Callable[..., RunCheckpoints], store: Unsteady
) -> None:
    first = begin()
    first.commit(Mark(step=10), content("state"))
    first.flush()
    store.broken = ConnectionError("the server went away")
    threading.Timer(0.5, lambda: setattr(store, "broken", None)).start()
    assert newest(begin()) == "state"


def test_a_snapshot_that_cannot_be_written_ends_the_run_and_not_in_silence(
    begin: Callable[..., RunCheckpoints],
) -> None:
    attempt = begin()

    def broken(folder: Path) -> None:
        raise ValueError("a defect")

    attempt.commit(Mark(step=10), broken)
    with pytest.raises(ValueError, match="a defect"):
        attempt.flush()


def test_the_ranks_ask_seldom_whether_they_must_leave_and_remember_the_answer(
    begin: Callable[..., RunCheckpoints],
) -> None:
    asked: list[bool] = []

    def leaves() -> bool:
        asked.append(True)
        return len(asked) > 1

    attempt = begin(leaves=leaves)
    answers = []
    for _ in range(500):
        answers.append(attempt.must_leave())
        time.sleep(0.001)
    assert not answers[0]
    assert len(asked) < 20
    attempt._next_look = 0
    assert attempt.must_leave()
    assert attempt.must_leave()
