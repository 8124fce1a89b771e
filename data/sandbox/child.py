"""The child process in which `data.sandbox.decoder` decodes one untrusted file after the other.

It takes requests from a socket, files from a shared memory, and answers in JSON, never in pickles: what a file
could make of this process, the parent only reads as text and pixels. Before the first file it gives up what it
does not need: open files, network, privileges, disk, memory. Knows no Ray, no S3 and no secret.
"""

import contextlib
import ctypes
import importlib
import io
import json
import mmap
import os
import resource
import signal
import socket
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pydicom
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels import get_decoder
from pydicom.uid import (
    UID,
    AllTransferSyntaxes,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
)

from data.imaging import quality
from data.imaging.masked_dicom import masked_stored
from data.imaging.preprocess import BadImageError, Decoded, Kind, PixelConfig, decode, scale

MESSAGE_BYTES = 16 * 1024
"""Largest request or answer."""
CHANNEL = 3
"""Descriptor of the socket after the start: those below are the standard streams, all on /dev/null."""
NOBODY = 65534
"""User and group that own nothing, taken on when the parent is root."""
ORIENTATION = 0x0112
"""EXIF tag; 6 is turned by a quarter."""
PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38  # linux/prctl.h
STALE_SHARE = 0.25
"""Of the allowed memory: a child that still holds more than this after a file is replaced, so that what earlier
files left behind cannot decide about a later one."""


@dataclass(frozen=True, kw_only=True)
class Start:
    """What the parent gives on the command line, as JSON."""

    channel: int
    """File descriptor of the socket."""
    memory: int
    """File descriptor of the shared memory."""
    memory_bytes: int
    """Address space allowed above what is in use after the start."""
    parent: int
    """Process id, to notice when it died before the death signal was asked for."""
    decoder: str
    """`module:function` that makes `Decoded` of bytes."""


class Confined:
    """The child after it gave its rights up; answers requests."""

    def __init__(self, start: Start) -> None:
        self.decode: Callable[..., Decoded] = decode
        self._warm_up()
        module, _, function = start.decoder.partition(":")
        self.decode = getattr(importlib.import_module(module), function)
        self.memory = mmap.mmap(start.memory, 0)
        os.close(start.memory)
        os.dup2(start.channel, CHANNEL)
        os.closerange(CHANNEL + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        self._statm = os.open("/proc/self/statm", os.O_RDONLY)
        self._used_bytes = self._address_space()
        self._stale_bytes = self._used_bytes + int(start.memory_bytes * STALE_SHARE)
        _give_up(start.parent, self._used_bytes + start.memory_bytes)

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Decode, judge and, where asked for, scale one file; the pixels replace it in the shared memory."""
        size = request["bytes"]
        signal.setitimer(signal.ITIMER_PROF, request["cpu_s"])  # SIGPROF ends the process: nothing handles it
        try:
            kind, pixels_HW, about = self._open(self.memory[:size], request)
            flat = np.ascontiguousarray(pixels_HW).reshape(-1).view(np.uint8)
            self.memory[: flat.size] = flat.data
            answer: dict[str, Any] = {"kind": kind, "shape": pixels_HW.shape, "type": pixels_HW.dtype.str}
            answer |= about
        except BadImageError as error:
            answer = {"type": type(error).__name__, "reason": error.reason, "message": str(error)}
        except MemoryError:
            answer = {"reason": "too_much_memory"}
        except Exception as error:  # noqa: BLE001 - a defect of a decoder is this file's end, not the run's
            answer = {"reason": "crash", "message": type(error).__name__}
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        return {**answer, "stale": self._address_space() > self._stale_bytes}

    def _open(self, blob: bytes, request: dict[str, Any]) -> tuple[Kind, np.ndarray, dict[str, Any]]:
        waived = request["waived"]
        if request["stored"]:
            return "dicom", masked_stored(blob, waived), {}
        view, region = request["view"], request["region"]
        decoded = quality.judged(blob, self.decode, view=view, region=region, waived=waived)
        if request["pixels"] is None:
            about = {"study": decoded.study_sha256, "concerns": quality.doubted(decoded).concerns}
            return decoded.kind, decoded.shown_HW, about
        return decoded.kind, scale(decoded.shown_HW, PixelConfig(**request["pixels"])), {}

    def _warm_up(self) -> None:
        """Load all that the first file would load: afterwards no file can be opened, not even a library's."""
        for syntax in AllTransferSyntaxes:
            with contextlib.suppress(NotImplementedError):
                get_decoder(syntax)
        request: dict[str, Any] = {"view": None, "region": None, "waived": [], "stored": False}
        request["pixels"] = {"side": 32}
        for blob in _small_files():
            with contextlib.suppress(BadImageError):
                self._open(blob, request)

    def _address_space(self) -> int:
        pages = int(os.pread(self._statm, 64, 0).split()[0])
        return pages * resource.getpagesize()


def main(argument: str) -> None:
    """Serve until the parent closes the socket; a failed start is reported to it."""
    start = Start(**json.loads(argument))
    channel = socket.socket(fileno=start.channel)
    warnings.simplefilter("ignore")
    try:
        confined = Confined(start)
    except Exception as error:  # noqa: BLE001 - no file has been seen yet: the parent raises it as its own
        channel.send(json.dumps({"failed": f"{type(error).__name__}: {error}"[:500]}).encode())
        return
    if channel.fileno() != CHANNEL:
        channel.detach()
        channel = socket.socket(fileno=CHANNEL)
    channel.send(b"{}")
    while message := channel.recv(MESSAGE_BYTES):
        channel.send(json.dumps(confined.answer(json.loads(message))).encode())


def _small_files() -> Iterator[bytes]:
    """Yield one file of each kind, in grey and colour, turned by EXIF, which has a reader of its own; each also cut."""
    turned = Image.Exif()
    turned[ORIENTATION] = 6
    grey_HW = np.add.outer(np.arange(160, dtype=np.uint16), np.arange(160, dtype=np.uint16))
    whole = [_small_dicom(grey_HW)]
    for kind in ("PNG", "JPEG"):
        for mode in ("L", "RGB"):
            file = io.BytesIO()
            Image.fromarray(np.minimum(grey_HW, 255).astype(np.uint8)).convert(mode).save(
                file, kind, exif=turned
            )
            whole.append(file.getvalue())
    for blob in whole:
        yield from (blob, blob[: len(blob) // 2])


def _small_dicom(grey_HW: np.ndarray) -> bytes:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = Dataset()
    data.file_meta = meta
    data.SOPClassUID = meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    data.SOPInstanceUID = meta.MediaStorageSOPInstanceUID = UID("2.25.1")
    data.SamplesPerPixel, data.PixelRepresentation, data.PhotometricInterpretation = 1, 0, "MONOCHROME2"
    data.Rows, data.Columns = grey_HW.shape
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 12, 11
    data.PixelData = grey_HW.astype("<u2").tobytes()
    data["PixelData"].VR = "OW"
    file = io.BytesIO()
    pydicom.dcmwrite(file, data, enforce_file_format=True)
    return file.getvalue()


def _give_up(parent: int, address_space_bytes: int) -> None:
    """Keep the socket, the shared memory and nothing more; end with the parent.

    A limit on opened files that equals those open forbids files and sockets alike. Memory is limited as address
    space: resident memory cannot be (`RLIMIT_RSS` does nothing), and a watchdog that samples it comes too late
    for a bomb. What is in use after the start is not counted: the libraries' mappings alone are some 100 MB.
    Source: setrlimit(2), prctl(2).
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    for option, value in ((PR_SET_NO_NEW_PRIVS, 1), (PR_SET_PDEATHSIG, signal.SIGKILL)):
        if libc.prctl(option, value, 0, 0, 0):
            raise OSError(ctypes.get_errno(), f"prctl {option} failed")
    if os.getppid() != parent:
        sys.exit(1)
    for limit, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_AS, address_space_bytes),
        (resource.RLIMIT_NOFILE, CHANNEL + 2),
    ):
        resource.setrlimit(limit, (most, most))
