"""Notes that a training loop leaves of its steps."""

import threading
import time
from pathlib import Path

from jobs.bench import train_peers


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
