import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cluster.embedded.process import (
    COMPONENT_MARK,
    HOME_MARK,
    Identity,
    end,
    identify,
    is_alive,
    last_lines,
    marked,
    start_detached,
    sweep,
)

SLEEPER = "import time; print('awake', flush=True); time.sleep(60)"
STUBBORN = (
    "import signal, time; signal.signal(15, signal.SIG_IGN); print('awake', flush=True); time.sleep(60)"
)
PARENT = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {SLEEPER!r}])"
HEADLESS = """
import ctypes, socket, threading, time
server = socket.create_server(("127.0.0.1", 0))
threading.Thread(target=time.sleep, args=(60,)).start()
print("awake", flush=True)
ctypes.CDLL(None).pthread_exit(None)
"""
HOME_ID = f"test-{os.getpid()}"

Start = Callable[..., Identity]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[subprocess.Popen[bytes]] = []

    def run(code: str, component: str = "one") -> Identity:
        env = {**os.environ, HOME_MARK: HOME_ID, COMPONENT_MARK: component}
        log = tmp_path / f"{len(started)}.log"
        process = start_detached([sys.executable, "-c", code], env=env, directory=tmp_path, log=log)
        started.append(process)
        until = time.monotonic() + 20
        while "awake" not in log.read_text():
            assert time.monotonic() < until
            time.sleep(0.02)
        identity = identify(process.pid)
        assert identity is not None
        return identity

    yield run
    sweep(HOME_ID, patience_s=10)
    for process in started:
        process.wait()


def test_a_process_whose_main_thread_is_gone_is_alive_while_another_holds_its_port(start: Start) -> None:
    identity = start(HEADLESS)
    until = time.monotonic() + 20
    while Path(f"/proc/{identity.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < until
        time.sleep(0.02)
    assert is_alive(identity)
    assert end(identity, signal.SIGKILL, 10)


def test_a_pid_that_went_to_someone_else_is_not_the_process_we_knew() -> None:
    us = identify(os.getpid())
    assert us is not None
    assert is_alive(us)
    assert not is_alive(dataclasses.replace(us, started_ticks=us.started_ticks - 1))
    assert not is_alive(dataclasses.replace(us, boot="another boot"))


def test_a_process_that_ended_and_was_not_collected_is_not_alive(start: Start) -> None:
    identity = start(SLEEPER)
    os.kill(identity.pid, signal.SIGKILL)
    assert end(identity, signal.SIGTERM, timeout_s=10)


def test_ending_a_stranger_who_got_the_pid_does_nothing(start: Start) -> None:
    identity = start(SLEEPER)
    stale = dataclasses.replace(identity, started_ticks=1)
    assert end(stale, signal.SIGKILL, timeout_s=0)
    assert is_alive(identity)


def test_it_runs_in_a_session_of_its_own(start: Start) -> None:
    assert os.getsid(start(SLEEPER).pid) != os.getsid(0)


def test_descendants_are_found_when_their_parent_was_killed(start: Start) -> None:
    parent = start(PARENT)
    assert len(marked(HOME_ID)) == 2
    os.kill(parent.pid, signal.SIGKILL)
    assert end(parent, signal.SIGTERM, timeout_s=10)
    assert len(marked(HOME_ID)) == 1
    assert sweep(HOME_ID) == 1
    assert marked(HOME_ID) == []


def test_one_component_is_swept_and_another_stays(start: Start) -> None:
    start(SLEEPER, "one")
    other = start(SLEEPER, "two")
    assert sweep(HOME_ID, "one") == 1
    assert is_alive(other)


def test_a_process_that_ignores_the_request_is_killed(start: Start) -> None:
    stubborn = start(STUBBORN)
    assert sweep(HOME_ID, patience_s=0.2) == 1
    assert not is_alive(stubborn)


def test_the_last_lines_of_a_log_are_its_end(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("".join(f"line {i}\n" for i in range(5000)))
    assert last_lines(tmp_path / "log", 2) == ["line 4998", "line 4999"]
    assert last_lines(tmp_path / "none") == []
