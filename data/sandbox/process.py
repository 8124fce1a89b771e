"""One child process of `data.sandbox.decoder`, seen from its parent: start it, hand it files, read answers, notice
its end.

The other end of the socket and of the shared memory is `data.sandbox.child`. Nothing that comes from there is
trusted: answers are JSON, checked, and pixels are copied out of a memory that the child cannot shrink. Knows one
child and one file at a time; which child gets a file, and how often it is tried, is `data.sandbox.decoder`'s.
"""

import fcntl
import json
import mmap
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from cluster.expected import ExpectedError
from cluster.settings import PROJECT_ROOT
from data.imaging.errors import MAX_PIXELS
from data.imaging.masked_dicom import KINDS
from data.imaging.preprocess import BadImageError, UnknownTypeError

BOOT = (
    "import sys, json; sys.path[:0] = json.loads(sys.argv[1]); "
    "from data.sandbox.child import main; main(sys.argv[2])"
)
REGION_BYTES = 256 * 2**20
"""Shared memory of one child, most of it never touched: the largest file that is ingested, or `MAX_PIXELS`."""
KEPT_BYTES = 4 * 2**20
"""Of the shared memory, what stays allocated between files."""
MESSAGE_BYTES = 16 * 1024
MESSAGE_CHARACTERS = 300
"""Of an answer's text, what is believed to be a message."""
F_ADD_SEALS, SEALS = 1033, 0x1 | 0x2 | 0x4  # linux/fcntl.h: no further seal, no shrinking, no growing
INHERITED = ("LD_LIBRARY_PATH",)
"""Of the parent's environment, what an interpreter may need to start; everything else stays with the parent."""
MMAP_THRESHOLD_BYTES, TRIM_THRESHOLD_BYTES = 32 * 2**20, 64 * 2**20
"""With glibc's own thresholds a process gives each picture's memory back and faults it in again: in the child 1,015
page faults and 1.7 ms of the 5 ms that a 1,024-pixel JPEG takes, in the parent 3.2 ms of the 8.6 ms that it spends on
a 12-bit DICOM file of that size. Source: mallopt(3)."""
ENVIRONMENT = {
    "LANG": "C.UTF-8",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "OPENCV_FOR_THREADS_NUM": "1",
    "MALLOC_MMAP_THRESHOLD_": str(MMAP_THRESHOLD_BYTES),
    "MALLOC_TRIM_THRESHOLD_": str(TRIM_THRESHOLD_BYTES),
}
DYING_S = 10.0
"""How long a process may take to end after it closed its socket."""

TOO_MUCH_MEMORY = "decoding the file takes more memory than is allowed"
TOO_SLOW = "decoding the file takes more time than is allowed"


class SandboxError(ExpectedError):
    """No child process can be had: a fault of this machine, not of a file; one line."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one file may take."""

    memory_bytes: int = 512 * 2**20
    """Address space above what a child has in use after its start."""
    cpu_s: float = 2.0
    """CPU time, user and system, of a file up to `free_bytes`; never wall time, which a busy machine stretches."""
    free_bytes: int = 8 * 2**20
    cpu_s_per_mb: float = 0.25
    """For each further 2**20 bytes of the file. Of its size, because a bomb is small: what takes long to unpack
    and is no bomb, such as 25 megapixels of lossless JPEG, is large as a file too."""
    wall_s: float = 60.0
    """How long a child may answer nothing while it also computes nothing."""

    def __post_init__(self) -> None:
        if min(self.memory_bytes, self.cpu_s, self.free_bytes, self.wall_s) <= 0 or self.cpu_s_per_mb < 0:
            raise ValueError(f"limits must be positive, got {self}")

    def cpu_s_of(self, size_bytes: int) -> float:
        return self.cpu_s + self.cpu_s_per_mb * max(0, size_bytes - self.free_bytes) / 2**20


class ChildLostError(Exception):
    """A child ended, or has to, at a file; the message is for the sender of the file."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Child:
    """One child process, used by one thread at a time."""

    def __init__(self, limits: Limits, decoder: str, import_from: Sequence[Path]) -> None:
        """Start it; `wait_until_ready` before the first file.

        Args:
            decoder: see `sandbox.Decoder`.
            import_from: likewise.
        Raises:
            OSError: no process or no memory can be had.
        """
        self.limits = limits
        self.used = False
        """True once it has had a file."""
        self.spent = False
        """True once it must not get another file."""
        self._ready = False
        memory = os.memfd_create("raydiology-image", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(memory, REGION_BYTES)
            fcntl.fcntl(memory, F_ADD_SEALS, SEALS)  # else a child could shrink it under the parent's feet
            self.memory = mmap.mmap(memory, REGION_BYTES)
            self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            folders = json.dumps([str(PROJECT_ROOT), *map(str, import_from)])
            start = _argument(theirs.fileno(), memory, limits, decoder)
            with theirs:
                self.process = subprocess.Popen(
                    [sys.executable, "-P", "-c", BOOT, folders, start],
                    pass_fds=(theirs.fileno(), memory),
                    env=ENVIRONMENT | {name: os.environ[name] for name in INHERITED if name in os.environ},
                    cwd="/",
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
        finally:
            os.close(memory)
        self.channel.settimeout(limits.wall_s)

    def wait_until_ready(self) -> None:
        """Wait for the end of its start.

        Raises:
            SandboxError: it did not start.
        """
        if self._ready:
            return
        try:
            failed = self._receive().get("failed")
        except ChildLostError as error:
            raise SandboxError(
                f"a decoder process ended at its start (exit {self.process.poll()})"
            ) from error
        if failed is not None:
            raise SandboxError(f"a decoder process did not start: {failed}")
        self._ready = True

    def ask(self, request: dict[str, Any], blob: bytes) -> tuple[np.ndarray, dict[str, Any]]:
        """Decode one file; return its pixels and the rest of the child's answer.

        Raises:
            BadImageError: the child says so.
            ChildLostError: it ended, or is to be ended, without saying what the file is.
        """
        size = len(blob)
        self.used = True
        self.memory[:size] = blob
        try:
            try:
                self.channel.send(json.dumps(request).encode())
            except OSError as error:
                raise self._lost() from error
            answer = self._receive()
            if answer["stale"]:
                self.spent = True
            if "reason" in answer:
                raise _refusal(answer)
            pixels_HW = self._pixels(answer)
            size = max(size, pixels_HW.nbytes)
            return pixels_HW, answer
        finally:
            if size > KEPT_BYTES:
                self.memory.madvise(mmap.MADV_REMOVE, KEPT_BYTES, REGION_BYTES - KEPT_BYTES)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self.channel.close()

    def _pixels(self, answer: dict[str, Any]) -> np.ndarray:
        height, width = answer["shape"]
        sound = isinstance(height, int) and isinstance(width, int) and 0 < height * width <= MAX_PIXELS
        if not sound or answer["type"] not in KINDS:
            raise ChildLostError("crash", "the decoder answered nonsense")
        flat = np.frombuffer(self.memory, answer["type"], height * width)
        return flat.reshape(height, width).copy()

    def _receive(self) -> dict[str, Any]:
        """Receive the next answer, however long it takes while the child computes or waits for a processor."""
        used_s = -1.0
        while True:
            try:
                message = self.channel.recv(MESSAGE_BYTES)
            except TimeoutError:
                seen = psutil.Process(self.process.pid)
                times = seen.cpu_times()
                total_s = times.user + times.system
                if total_s == used_s and seen.status() != psutil.STATUS_RUNNING:
                    self.process.kill()
                    raise ChildLostError("too_slow", TOO_SLOW) from None
                used_s = total_s
                continue
            except OSError as error:
                raise self._lost() from error
            if not message:
                raise self._lost()
            try:
                answer: dict[str, Any] = json.loads(message)
            except ValueError as error:
                raise ChildLostError("crash", "the decoder answered nonsense") from error
            return answer

    def _lost(self) -> ChildLostError:
        """Wait for the end of a child that has closed its socket, and say what ended it."""
        try:
            code = self.process.wait(timeout=DYING_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        if code == -signal.SIGPROF:
            return ChildLostError("too_slow", TOO_SLOW)
        how = signal.Signals(-code).name if code < 0 else f"exit {code}"
        return ChildLostError("crash", f"the decoder crashed at the file ({how})")


def _argument(channel: int, memory: int, limits: Limits, decoder: str) -> str:
    return json.dumps(
        {
            "channel": channel,
            "memory": memory,
            "memory_bytes": limits.memory_bytes,
            "parent": os.getpid(),
            "decoder": decoder,
        }
    )


def _refusal(answer: dict[str, Any]) -> BadImageError | ChildLostError:
    reason = str(answer["reason"])
    if reason == "too_much_memory":
        return ChildLostError(reason, TOO_MUCH_MEMORY)
    if reason == "crash":
        return ChildLostError(reason, f"the decoder crashed at the file ({answer['message']})")
    kind = UnknownTypeError if answer["type"] == UnknownTypeError.__name__ else BadImageError
    return kind(reason, str(answer["message"])[:MESSAGE_CHARACTERS])
