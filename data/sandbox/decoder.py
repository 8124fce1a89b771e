"""Decode untrusted files in child processes: `Decoder` is what ETL and serving open foreign images with.

A file that crashes its decoder, loops or unpacks to gigabytes ends a child and becomes one `BadImageError`; the
next file goes to a new child. Children are fresh interpreters, never forks: a worker of Ray or of the front door
has threads, secrets and gigabytes that a fork would share. They are kept for many files, and a shared memory
carries the file there and the pixels back. Why so, and what it costs: docs/decisions/0006. One child is
`data.sandbox.process`, whose `Limits` and `SandboxError` callers import from here. Knows no Ray and no S3.
"""

import atexit
import ctypes
import functools
import queue
import threading
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from data.imaging.preprocess import BadImageError, Decoded, PixelConfig
from data.imaging.quality import Region
from data.sandbox.gate import Gate
from data.sandbox.process import (
    MMAP_THRESHOLD_BYTES,
    REGION_BYTES,
    TRIM_THRESHOLD_BYTES,
    Child,
    ChildLostError,
    Limits,
    SandboxError,
)

M_MMAP_THRESHOLD, M_TRIM_THRESHOLD = -3, -1  # malloc.h


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
        decoder: str = "data.imaging.preprocess:decode",
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
        self._import_from = tuple(import_from)
        self._gate = Gate()
        self._lock = threading.Lock()
        self._closed = False
        self._alive: set[Child] = set()
        # A child dies with the thread that started it (prctl(2), PR_SET_PDEATHSIG): this one lives as long as the pool.
        self._starter = ThreadPoolExecutor(1, "decoder-starter")
        self._idle: queue.SimpleQueue[Child | SandboxError] = queue.SimpleQueue()
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
                if isinstance(child_or_error, Child):
                    self._end(child_or_error)
        self._idle.put(SandboxError("the decoder is closed"))

    def pids(self) -> list[int]:
        """Return the process ids of the children."""
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
        shown_HW, answer = self._ask(blob, view=view, region=region, waived=waived)
        height, width = shown_HW.shape
        return Decoded(
            shown_HW=shown_HW,
            kind=answer["kind"],
            width=width,
            height=height,
            study_sha256=answer["study"],
            concerns=tuple(answer["concerns"]),
        )

    def to_pixels(
        self,
        blob: bytes,
        config: PixelConfig,
        *,
        view: str | None = None,
        region: Region | None = None,
        waived: Collection[str] = (),
    ) -> np.ndarray:
        """Run `decode`, then `preprocess.scale`, in a child; only pixels_HW, uint8 (side, side), come back.

        Args, Raises: see `decode`.
        """
        pixels_HW, _ = self._ask(blob, view=view, region=region, waived=waived, pixels=asdict(config))
        return pixels_HW

    def stored(self, blob: bytes, *, waived: Collection[str] = ()) -> np.ndarray:
        """Run `stored.masked_stored` on a DICOM file in a child; returns stored_HW.

        Args, Raises: see `decode`; what the image shows is not judged.
        """
        stored_HW, _ = self._ask(blob, waived=waived, stored=True)
        return stored_HW

    def _ask(
        self,
        blob: bytes,
        *,
        view: str | None = None,
        region: Region | None = None,
        waived: Collection[str] = (),
        pixels: dict[str, Any] | None = None,
        stored: bool = False,
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Ask a child for stored pixels, else scaled ones where `pixels` says how, else shown ones."""
        if len(blob) > REGION_BYTES:
            raise BadImageError("too_large", f"the file has {len(blob)} bytes; {REGION_BYTES} is the most")
        request: dict[str, Any] = {
            **{"view": view, "region": region, "waived": list(waived), "pixels": pixels, "stored": stored},
            **{"bytes": len(blob), "cpu_s": self.limits.cpu_s_of(len(blob))},
        }
        try:
            with self._gate.together(), self._taken() as child:
                return child.ask(request, blob)
        except ChildLostError as error:
            if self._closed:
                raise SandboxError("the decoder was closed while it had a file in hand") from error
        try:
            with self._gate.alone(), self._taken(unused=True) as child:
                return child.ask(request, blob)
        except ChildLostError as error:
            raise BadImageError(error.reason, str(error)) from error

    @contextmanager
    def _taken(self, *, unused: bool = False) -> Iterator[Child]:
        """Take one idle child and put it back afterwards; one that is spent is replaced at once."""
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

    def _start(self) -> Child:
        try:
            child = self._starter.submit(Child, self.limits, self._decoder, self._import_from).result()
        except OSError as error:
            raise SandboxError(f"cannot start a decoder process: {error.strerror}") from error
        except RuntimeError as error:
            raise SandboxError("the decoder is closed") from error
        with self._lock:
            self._alive.add(child)
        return child

    def _end(self, child: Child) -> None:
        child.end()
        with self._lock:
            self._alive.discard(child)


def process_decoder() -> Decoder:
    """Return the one decoder of this process, started on first use: a Ray worker keeps it from task to task.

    It is closed when this process ends. From then on the process keeps the memory of files.
    """
    with _starting:  # several threads of a task ask at once
        return _started()


_starting = threading.Lock()


@functools.cache
def _started() -> Decoder:
    _keep_memory()
    decoder = Decoder(children=1)
    atexit.register(decoder.close)
    return decoder


def _keep_memory() -> None:
    """Give this process the thresholds of its children; where the C library has none to set, nothing changes."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES)
        mallopt(M_TRIM_THRESHOLD, TRIM_THRESHOLD_BYTES)
