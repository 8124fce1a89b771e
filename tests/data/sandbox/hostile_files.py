"""Files and a decoder that misbehave on purpose, for the tests of the sandbox."""

import io
import time
from collections.abc import Callable

import numpy as np
import psutil
import pytest
from PIL import Image

from data.imaging.preprocess import BadImageError
from data.sandbox.decoder import Limits

QUICK = Limits(cpu_s=0.3, wall_s=0.4)


HOSTILE = '''
    """Decoders that do what a decoder with a hole in it does when the file asks for it."""
    import ctypes, os, resource, signal, socket, time
    from data.imaging import preprocess
    kept = []

    def by_content(blob):
        """The file says what happens."""
        {
            b"loop": loop, b"sleep": lambda: time.sleep(3600), b"bomb": lambda: bytes(2**30), b"leak": leak,
            b"segfault": lambda: ctypes.string_at(0), b"exit": lambda: os._exit(7), b"raise": defect,
            b"kill": lambda: os.kill(os.getpid(), signal.SIGKILL), b"once": once, b"cpu": compute,
            b"open": lambda: open("/etc/passwd"), b"connect": socket.socket, b"fork": os.fork,
            b"write": lambda: os.write(os.memfd_create("x"), b"x"), b"parent": look_at_parent,
        }.get(blob[:200].rstrip(b" "), lambda: None)()
        return preprocess.decode(blob if blob[:1] == b"\\x89" else GOOD)

    def loop():
        while True:
            pass

    def compute():
        started_s = time.process_time()
        while time.process_time() - started_s < 0.2:
            pass

    def defect():
        raise AssertionError("DOE^JANE")

    def leak():
        kept.append(bytes(200 * 2**20))

    def once():
        """Crashes in a child that has seen other files, as a broken heap does."""
        if kept:
            os.abort()
        kept.append(1)

    def look_at_parent():
        os.kill(os.getppid(), 0)
        raise preprocess.BadImageError("corrupt", "the parent could be signalled")
'''


def png(seed: int = 0, side: int = 80) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (side, side), dtype=np.uint8)).save(
        file, "PNG"
    )
    return file.getvalue()


def reason(work: Callable[[], object]) -> str:
    with pytest.raises(BadImageError) as caught:
        work()
    return caught.value.reason


def gone(pid: int, within_s: float = 10.0) -> bool:
    ends_at = time.monotonic() + within_s
    while time.monotonic() < ends_at:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.02)
    return False
