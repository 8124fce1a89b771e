"""Start, recognise and end processes by their id, never by a name.

A process is recognised by pid, start time and boot, so that a stale file cannot point at a stranger; every process of a
home also carries the home's mark in its environment, which all its descendants inherit. `/proc` is read where psutil
cannot tell: a start time that no clock change moves, and whether a zombie still has threads that hold its ports.
"""

import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

HOME_MARK, COMPONENT_MARK = "RAYDIOLOGY_HOME_ID", "RAYDIOLOGY_COMPONENT"
MAX_LOG_BYTES = 20 * 1024**2


@dataclass(frozen=True, kw_only=True)
class Identity:
    """One process of one boot; a process that gets the same pid later has another identity."""

    pid: int
    started_ticks: int
    """Clock ticks from boot to the start of the process: unlike a time of day, no clock change moves it."""
    boot: str


def identify(pid: int) -> Identity | None:
    """Identify a running process; None when there is none of that pid.

    A zombie runs no more, unless other threads of it still do: they hold its ports until they are gone too.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, threads = fields[0], int(fields[17])
    if state == "X" or (state == "Z" and threads <= 1):
        return None
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return Identity(pid=pid, started_ticks=int(fields[19]), boot=boot)


def is_alive(identity: Identity) -> bool:
    return identify(identity.pid) == identity


def start_detached(
    command: Sequence[str], *, env: Mapping[str, str], directory: Path, log: Path
) -> subprocess.Popen[bytes]:
    """Start a process in a session of its own, so that it outlives us and our terminal; its words go to `log`."""
    if log.exists() and log.stat().st_size > MAX_LOG_BYTES:
        log.replace(log.with_suffix(".log.1"))
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            env=dict(env),
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def marked(home_id: str, component: str | None = None) -> list[psutil.Process]:
    """List every process of a home, or of one component of it, children included, without us and our ancestors."""
    ours = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    processes: dict[int, psutil.Process] = {}
    for process in psutil.process_iter():
        if process.pid in ours or not _has_mark(process, home_id, component):
            continue
        processes[process.pid] = process
        try:
            processes.update({child.pid: child for child in process.children(recursive=True)})
        except psutil.NoSuchProcess:
            continue
    return [process for pid, process in processes.items() if pid not in ours and identify(pid) is not None]


def command_line(process: psutil.Process) -> str:
    """Return a process's title or command in one line; empty if it has ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _has_mark(process: psutil.Process, home_id: str, component: str | None) -> bool:
    try:
        env = process.environ()
    except (psutil.Error, OSError):  # gone meanwhile, a zombie, or someone else's
        return False
    return env.get(HOME_MARK) == home_id and component in (None, env.get(COMPONENT_MARK))


def end(identity: Identity, how: signal.Signals, timeout_s: float) -> bool:
    """Ask one process to end and wait.

    Returns:
        True if it is gone.
    """
    if not is_alive(identity):
        return True
    _signal([identity.pid], how)
    return wait_gone([identity], timeout_s)


def wait_gone(identities: Iterable[Identity], timeout_s: float) -> bool:
    until = time.monotonic() + timeout_s
    left = list(identities)
    while left := [identity for identity in left if is_alive(identity)]:
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


def sweep(home_id: str, component: str | None = None, *, patience_s: float = 3.0) -> int:
    """End all that a home, or one component of it, still runs: first asked, then killed, until none is left.

    Returns:
        how many processes were found.
    """
    ended: set[int] = set()
    for round_number in range(20):
        left = marked(home_id, component)
        if not left:
            break
        ended |= {process.pid for process in left}
        identities = [
            identity for identity in (identify(process.pid) for process in left) if identity is not None
        ]
        _signal(
            [identity.pid for identity in identities], signal.SIGTERM if round_number == 0 else signal.SIGKILL
        )
        wait_gone(identities, patience_s)
    return len(ended)


def _signal(pids: Iterable[int], how: signal.Signals) -> None:
    for pid in pids:
        try:
            os.kill(pid, how)
        except ProcessLookupError:
            continue


def last_lines(log: Path, count: int = 10) -> list[str]:
    """Return the end of a log file; empty when there is no such file."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 16_384))
            return file.read().decode(errors="replace").splitlines()[-count:]
    except FileNotFoundError:
        return []
