"""Decode untrusted files in child processes: `Decoder` is what ETL and serving open foreign images with.

A file that crashes its decoder, loops or unpacks to gigabytes ends a child and becomes one `BadImageError`; the
next file goes to a new child. Children are fresh interpreters, never forks: a worker of Ray or of the front door
has threads, secrets and gigabytes that a fork would share. They are kept for many files, and a shared memory
carries the file there and the pixels back. Why so, and what it costs: docs/decisions/0006. Knows no Ray and no S3.
"""

import ctypes
import fcntl
import functools
import json
import mmap
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import psutil

from cluster.expected import ExpectedError
from data.bad_image import MAX_PIXELS
from data.preprocess import BadImageError, Decoded, PixelConfig, UnknownTypeError
from data.quality import Region
from data.stored import KINDS

ROOT = Path(__file__).resolve().parents[1]
"""Where the rooms are: the child imports them from there, whatever started the parent."""
BOOT = (
    "import sys, json; sys.path[:0] = json.loads(sys.argv[1]); "
    "from data.sandbox_child import main; main(sys.argv[2])"
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
M_MMAP_THRESHOLD, M_TRIM_THRESHOLD = -3, -1  # malloc.h
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


class Decoder:
    """A pool of children, for any number of threads; a context manager.

    A file at which a child ends is tried once more, in a new child and while no other child of this pool works:
    what the first attempt suffered from (an earlier file's traces, a machine out of memory, a caught signal) would
    otherwise decide which images a dataset version holds.
    """

    def __init__(
        self,
        *,
        children: int = 1,
        limits: Limits | None = None,
        decoder: str = "data.preprocess:decode",
        import_from: Sequence[Path] = (),
    ) -> None:
        """Start the children and wait until they are ready.

        Args:
            decoder: `module:function` that makes `Decoded` of bytes, and of waived reasons where there are some; tests
                put a hostile one here.
            import_from: further folders to import it from.
        Raises:
            SandboxError: a child does not start.
        """
        if children < 1:
            raise ValueError(f"children must be at least 1, got {children}")
        self.limits = limits or Limits()
        self._decoder = decoder
        self._import_from = [str(ROOT), *map(str, import_from)]
        self._gate = _Gate()
        self._lock = threading.Lock()
        self._closed = False
        self._alive: set[_Child] = set()
        # A child dies with the thread that started it (prctl(2), PR_SET_PDEATHSIG): this one lives as long as the pool.
        self._starter = ThreadPoolExecutor(1, "decoder-starter")
        self._idle: queue.SimpleQueue[_Child | SandboxError] = queue.SimpleQueue()
        try:
            started = [self._start() for _ in range(children)]
            for child in started:
                child.wait_until_ready()
                self._idle.put(child)
        except BaseException:
            self.close()
            for child in list(self._alive):
                self._end(child)
            raise

    def __enter__(self) -> "Decoder":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the children; a file that one of them has in hand is lost with a `SandboxError`."""
        with self._lock:
            self._closed = True
            children = list(self._alive)
        self._starter.shutdown()
        for child in children:
            child.process.kill()
        with suppress(queue.Empty):
            while True:
                child_or_error = self._idle.get_nowait()
                if isinstance(child_or_error, _Child):
                    self._end(child_or_error)
        self._idle.put(SandboxError("the decoder is closed"))

    def pids(self) -> list[int]:
        """Process ids of the children."""
        with self._lock:
            return sorted(child.process.pid for child in self._alive)

    def decode(
        self,
        blob: bytes,
        *,
        view: str | None = None,
        region: Region | None = None,
        waived: Collection[str] = (),
    ) -> Decoded:
        """Read and judge one image; `preprocess.decode` and `quality.check` in a child.

        Args:
            view: what is known of it besides the file, see `quality.check`.
            region: likewise.
            waived: reasons of the two that are not to keep the image out; none of the child's own can be waived.
        Raises:
            BadImageError: with the reasons of both, and crash, too_slow, too_much_memory.
            SandboxError: no child can be had.
        """
        shown_HW, kind = self._ask(blob, _request(view=view, region=region, waived=waived))
        height, width = shown_HW.shape
        return Decoded(shown_HW=shown_HW, kind=kind, width=width, height=height)

    def to_pixels(
        self,
        blob: bytes,
        config: PixelConfig,
        *,
        view: str | None = None,
        region: Region | None = None,
        waived: Collection[str] = (),
    ) -> np.ndarray:
        """`decode`, then `preprocess.scale`, both in a child: only pixels_HW, uint8 (side, side), come back.

        Args, Raises: see `decode`.
        """
        request = _request(view=view, region=region, waived=waived, pixels=asdict(config))
        pixels_HW, _ = self._ask(blob, request)
        return pixels_HW

    def stored(self, blob: bytes, *, waived: Collection[str] = ()) -> np.ndarray:
        """`stored.masked_stored` of a DICOM file, in a child: stored_HW.

        Args, Raises: see `decode`; what the image shows is not judged.
        """
        stored_HW, _ = self._ask(blob, _request(waived=waived, stored=True))
        return stored_HW

    def _ask(self, blob: bytes, request: dict[str, Any]) -> tuple[np.ndarray, Any]:
        if len(blob) > REGION_BYTES:
            raise BadImageError("too_large", f"the file has {len(blob)} bytes; {REGION_BYTES} is the most")
        request |= {"bytes": len(blob), "cpu_s": self.limits.cpu_s_of(len(blob))}
        try:
            with self._gate.together(), self._taken() as child:
                return child.ask(request, blob)
        except _ChildLostError as error:
            if self._closed:
                raise SandboxError("the decoder was closed while it had a file in hand") from error
        try:
            with self._gate.alone(), self._taken(unused=True) as child:
                return child.ask(request, blob)
        except _ChildLostError as error:
            raise BadImageError(error.reason, str(error)) from error

    @contextmanager
    def _taken(self, *, unused: bool = False) -> "Iterator[_Child]":
        """One idle child, put back afterwards; one that is spent is replaced at once."""
        child = self._idle.get()
        if isinstance(child, SandboxError):
            self._replace()
            raise child
        try:
            if unused and child.used:
                self._end(child)
                child = self._start()
            child.wait_until_ready()
            yield child
        except BadImageError:
            raise
        except BaseException:  # it is lost, or the caller was interrupted and an answer may be on its way
            child.spent = True
            raise
        finally:
            if child.spent:
                self._end(child)
                self._replace()
            else:
                self._idle.put(child)

    def _replace(self) -> None:
        """Put a new child, or why there is none, where the next file looks for one."""
        try:
            self._idle.put(self._start())
        except SandboxError as error:
            self._idle.put(error)

    def _start(self) -> "_Child":
        try:
            child = self._starter.submit(_Child, self.limits, self._decoder, self._import_from).result()
        except OSError as error:
            raise SandboxError(f"cannot start a decoder process: {error.strerror}") from error
        except RuntimeError as error:
            raise SandboxError("the decoder is closed") from error
        with self._lock:
            self._alive.add(child)
        return child

    def _end(self, child: "_Child") -> None:
        child.end()
        with self._lock:
            self._alive.discard(child)


def process_decoder() -> Decoder:
    """The one decoder of this process, started when first asked for: a Ray worker keeps it from task to task.

    It is never closed: its child ends with this process. From then on the process keeps the memory of files.
    """
    with _starting:  # several threads of a task ask at once
        return _started()


_starting = threading.Lock()


@functools.cache
def _started() -> Decoder:
    _keep_memory()
    return Decoder(children=1)


def _keep_memory() -> None:
    """Give this process the thresholds of its children; where the C library has none to set, nothing changes."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES)
        mallopt(M_TRIM_THRESHOLD, TRIM_THRESHOLD_BYTES)


class _ChildLostError(Exception):
    """A child ended, or has to, at a file; the message is for whoever sent the file."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class _Child:
    """One child process, used by one thread at a time."""

    def __init__(self, limits: Limits, decoder: str, import_from: list[str]) -> None:
        self.limits = limits
        self.used = False
        """Whether it has had a file."""
        self.spent = False
        """Whether it must not get another file."""
        self._ready = False
        memory = os.memfd_create("raydiology-image", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(memory, REGION_BYTES)
            fcntl.fcntl(memory, F_ADD_SEALS, SEALS)  # else a child could shrink it under the parent's feet
            self.memory = mmap.mmap(memory, REGION_BYTES)
            self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            start = _argument(theirs.fileno(), memory, limits, decoder)
            with theirs:
                self.process = subprocess.Popen(
                    [sys.executable, "-P", "-c", BOOT, json.dumps(import_from), start],
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
        """Raises SandboxError: it did not start."""
        if self._ready:
            return
        try:
            failed = self._receive().get("failed")
        except _ChildLostError as error:
            raise SandboxError(
                f"a decoder process ended at its start (exit {self.process.poll()})"
            ) from error
        if failed is not None:
            raise SandboxError(f"a decoder process did not start: {failed}")
        self._ready = True

    def ask(self, request: dict[str, Any], blob: bytes) -> tuple[np.ndarray, Any]:
        """One file: its pixels and its kind.

        Raises:
            BadImageError: the child says so.
            _ChildLostError: it ended, or is to be ended, without saying what the file is.
        """
        size = len(blob)
        self.used = True
        self.memory[:size] = blob
        try:
            try:
                self.channel.send(json.dumps(request).encode())
            except OSError as error:
                raise self._lost() from error
            told = self._receive()
            if told["stale"]:
                self.spent = True
            if "reason" in told:
                raise _refusal(told)
            pixels_HW = self._pixels(told)
            size = max(size, pixels_HW.nbytes)
            return pixels_HW, told["kind"]
        finally:
            if size > KEPT_BYTES:
                self.memory.madvise(mmap.MADV_REMOVE, KEPT_BYTES, REGION_BYTES - KEPT_BYTES)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self.channel.close()

    def _pixels(self, told: dict[str, Any]) -> np.ndarray:
        height, width = told["shape"]
        sound = isinstance(height, int) and isinstance(width, int) and 0 < height * width <= MAX_PIXELS
        if not sound or told["type"] not in KINDS:
            raise _ChildLostError("crash", "the decoder answered nonsense")
        flat = np.frombuffer(self.memory, told["type"], height * width)
        return flat.reshape(height, width).copy()

    def _receive(self) -> dict[str, Any]:
        """The next answer, however long it takes while the child still computes or waits for a processor."""
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
                    raise _ChildLostError("too_slow", TOO_SLOW) from None
                used_s = total_s
                continue
            except OSError as error:
                raise self._lost() from error
            if not message:
                raise self._lost()
            try:
                told: dict[str, Any] = json.loads(message)
            except ValueError as error:
                raise _ChildLostError("crash", "the decoder answered nonsense") from error
            return told

    def _lost(self) -> _ChildLostError:
        """What ended it; it has closed its socket, so it is ending or has ended."""
        try:
            code = self.process.wait(timeout=DYING_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        if code == -signal.SIGPROF:
            return _ChildLostError("too_slow", TOO_SLOW)
        how = signal.Signals(-code).name if code < 0 else f"exit {code}"
        return _ChildLostError("crash", f"the decoder crashed at the file ({how})")


def _request(
    *,
    view: str | None = None,
    region: Region | None = None,
    waived: Collection[str] = (),
    pixels: dict[str, Any] | None = None,
    stored: bool = False,
) -> dict[str, Any]:
    """What a child is asked for: stored pixels, else scaled ones where a configuration says how, else shown ones."""
    return {"view": view, "region": region, "waived": list(waived), "pixels": pixels, "stored": stored}


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


def _refusal(told: dict[str, Any]) -> BadImageError | _ChildLostError:
    reason = str(told["reason"])
    if reason == "too_much_memory":
        return _ChildLostError(reason, TOO_MUCH_MEMORY)
    if reason == "crash":
        return _ChildLostError(reason, f"the decoder crashed at the file ({told['message']})")
    kind = UnknownTypeError if told["type"] == UnknownTypeError.__name__ else BadImageError
    return kind(reason, str(told["message"])[:MESSAGE_CHARACTERS])


class _Gate:
    """Many files at a time, or one alone; who wants to be alone is let in before those who come later."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._alone = 0
        """How many are alone or want to be."""

    @contextmanager
    def together(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._alone)
            self._inside += 1
        try:
            yield
        finally:
            self._leave(alone=0)

    @contextmanager
    def alone(self) -> Iterator[None]:
        with self._changed:
            self._alone += 1
            try:
                self._changed.wait_for(lambda: not self._inside)
            except BaseException:
                self._alone -= 1
                raise
            self._inside = 1
        try:
            yield
        finally:
            self._leave(alone=1)

    def _leave(self, *, alone: int) -> None:
        with self._changed:
            self._inside -= 1
            self._alone -= alone
            self._changed.notify_all()
