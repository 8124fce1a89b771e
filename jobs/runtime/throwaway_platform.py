"""A platform for one benchmark, in a home of its own, and what its processes use of the machine.

So no benchmark reads or writes what the user's own platform stores, and each begins with servers that have cached
nothing.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from cluster.embedded.home import Home
from cluster.embedded.process import COMPONENT_MARK, HOME_MARK, command_line, marked
from cluster.embedded.site import read_env
from cluster.settings import PROJECT_ROOT, Settings
from jobs.runtime.entry import JobError
from jobs.runtime.job_process import last_line

IDLE_S = 5.0
FOREIGN = ("RAYDIOLOGY_", "RAY_", "AWS_", "MLFLOW_")
WATCHERS = ("dashboard", "log_monitor", "DashboardAgent", "runtime_env", "RuntimeEnvAgent", "TrainStateActor")
"""Processes of Ray that show what happens and have no part in it."""


@dataclass(frozen=True, kw_only=True)
class OwnPlatform:
    home: Home
    env: dict[str, str]
    """For a process of ours that is to count as part of the platform's job: it carries the platform's mark."""
    settings: Settings
    merge_errors: bool = False
    """Whether standard error of the processes goes among their output, and not to this process's."""

    def processes(self, component: str | None = None) -> list[psutil.Process]:
        return marked(self.home.id, component)

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        """Start `python -m ...` inside the platform."""
        return subprocess.Popen(
            [sys.executable, "-m", *arguments],
            cwd=PROJECT_ROOT,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if self.merge_errors else None,
            text=True,
        )

    def run(self, *arguments: str) -> dict[str, Any]:
        """Run a job inside the platform; returns its last line.

        Raises:
            JobError: it failed.
        """
        process = self.start(*arguments)
        output, _ = process.communicate()
        return last_line(arguments[0], process.returncode, output.splitlines())


@contextmanager
def own_platform() -> Iterator[OwnPlatform]:
    """Start a platform on random ports; stop it and remove its home at the end."""
    directory = Path(tempfile.mkdtemp(prefix="raydiology-bench-"))
    home = Home((directory / "home").resolve())
    clean = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    clean["RAYDIOLOGY_HOME"] = str(home.path)
    try:
        run_module("cluster.embedded.platform", "up", "--random-ports", env=clean)
        env = read_env(home)
        marks = {HOME_MARK: home.id, COMPONENT_MARK: "job"}
        marks |= {"SPT_NOENV": "1", "RAY_DATA_DISABLE_PROGRESS_BARS": "1"}
        yield OwnPlatform(home=home, env={**clean, **env, **marks}, settings=Settings.from_env(env))
    finally:
        run_module("cluster.embedded.platform", "down", env=clean)
        shutil.rmtree(directory, ignore_errors=True)
        shutil.rmtree(home.socket_directory, ignore_errors=True)


def run_module(*arguments: str, env: Mapping[str, str] | None = None) -> str:
    """Run `python -m ...` to its end; returns its output.

    Raises:
        JobError: it failed; the message is what it wrote.
    """
    command = [sys.executable, "-m", *arguments]
    ended = subprocess.run(command, cwd=PROJECT_ROOT, env=env, capture_output=True, text=True)
    if ended.returncode != 0:
        raise JobError(f"{' '.join(arguments)}: {ended.stderr.strip() or ended.stdout.strip()}")
    return ended.stdout


@dataclass
class Watch:
    """A thread that looks at processes until it is left: what they used, and the most memory they had at once."""

    processes: Callable[[], Sequence[psutil.Process]]
    interval_s: float = 2.0
    """A process that ends between two looks loses what it used since the first of them."""
    memory: bool = False
    """Whether to look at memory too, which takes a millisecond for each gigabyte of a process."""
    cpu_s: float = 0.0
    """CPU-seconds between entering and leaving, of those that were there by then and of newcomers, less what the
    looking itself took."""
    wall_s: float = 0.0
    """Seconds between entering and leaving."""
    peak_bytes: int = 0
    """Proportional set size, which counts a shared page once, of all of them at once."""
    _first: dict[tuple[int, float], float] = field(default_factory=dict)
    _last: dict[tuple[int, float], float] = field(default_factory=dict)
    _looking_s: float = 0.0
    _left: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> "Watch":
        self._look(start=True)
        self.wall_s = -time.monotonic()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        assert self._thread is not None
        self._left.set()
        self._thread.join()
        self._look(start=False)
        self.wall_s += time.monotonic()
        used_s = sum(last - self._first.get(key, 0.0) for key, last in self._last.items())
        own = any(pid == os.getpid() for pid, _ in self._last)
        self.cpu_s = used_s - (self._looking_s if own else 0.0)

    def _run(self) -> None:
        while not self._left.wait(self.interval_s):
            self._look(start=False)

    def _look(self, *, start: bool) -> None:
        started_s = time.thread_time()
        total = 0
        for process in self.processes():
            try:
                times = process.cpu_times()
                self._last[process.pid, process.create_time()] = times.user + times.system
                total += _pss_bytes(process.pid) if self.memory else 0
            except (psutil.Error, OSError):
                continue  # ended meanwhile
        self.peak_bytes = max(self.peak_bytes, total)
        if start:
            self._first = dict(self._last)
        else:
            self._looking_s += time.thread_time() - started_s


def idle_share(processes: Callable[[], Sequence[psutil.Process]]) -> float:
    """Measure the CPU-seconds a second that processes use while nothing runs: what a cluster costs at rest."""
    with Watch(processes, interval_s=IDLE_S) as watch:
        time.sleep(IDLE_S)
    return watch.cpu_s / IDLE_S


def at_work(process: psutil.Process) -> bool:
    """Tell whether a process of Ray does, or shares out, the work."""
    line = command_line(process)
    return bool(line) and not any(name in line for name in WATCHERS)


def _pss_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0
