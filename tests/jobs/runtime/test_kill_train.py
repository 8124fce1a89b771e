"""What is pure in the script; the kills themselves are in tests/services_training/test_train_interrupted.py."""

import threading
import time
from pathlib import Path

import pytest

from jobs.bench import train_peers
from jobs.kill_train import victims
from jobs.runtime.entry import JobError
from jobs.runtime.job_process import last_line


def test_every_fourth_victim_is_the_driver_and_the_steps_are_those_of_the_seed() -> None:
    found = victims(20, 156, seed=0)
    assert [victim for victim, _ in found].count("driver") == 5
    assert found == victims(20, 156, seed=0)
    assert [step for _, step in found] != [step for _, step in victims(20, 156, seed=1)]
    assert all(1 <= step < 155 for _, step in found)


def test_a_job_that_failed_or_said_nothing_is_an_error() -> None:
    assert last_line("job", 0, ["noise", '{"job": "train", "status": "ok"}', "(raylet) a worker died"]) == {
        "job": "train",
        "status": "ok",
    }
    with pytest.raises(JobError, match="ended with 1"):
        last_line("job", 1, ['{"job": "train", "status": "failed"}'])
    with pytest.raises(JobError, match="ended with 0"):
        last_line("job", 0, ["noise"])


def test_a_note_of_a_step_is_read_when_it_is_whole(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    assert train_peers.read(notes) == []
    train_peers.note(notes, 1, 7, 0.5)
    with notes.open("a") as file:
        file.write('{"rank": 0, "st')
    (only,) = train_peers.read(notes)
    assert (only["rank"], only["step"], only["took_s"]) == (1, 7, 0.5)
    assert only["ended_at"] <= time.time()


def test_a_function_is_noted_each_time_it_returns_and_keeps_its_value(tmp_path: Path) -> None:
    class Module:
        @staticmethod
        def work(rank: int, step: int) -> str:
            time.sleep(0.01)
            return f"{rank} {step}"

    train_peers.note_steps(Module, "work", tmp_path / "notes", lambda rank, step: (rank, step))
    worker = threading.Thread(target=lambda: [Module.work(0, step) for step in (1, 2)])
    worker.start()
    worker.join()
    assert [one["step"] for one in train_peers.read(tmp_path / "notes")] == [1, 2]
    assert all(one["took_s"] >= 0.01 for one in train_peers.read(tmp_path / "notes"))
    assert Module.work(0, 3) == "0 3"
