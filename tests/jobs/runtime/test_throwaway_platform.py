"""A benchmark's watch measures what processes use."""

import subprocess
import sys

import psutil

from jobs.runtime.throwaway_platform import Watch

BUSY = "import time\nblock = bytearray(80 * 2**20)\nwhile time.process_time() < 0.6: pass\nprint(flush=True)\ninput()"


def test_a_watch_counts_the_cpu_time_and_memory_of_what_started_meanwhile() -> None:
    started: list[psutil.Process] = []
    with Watch(lambda: list(started), interval_s=0.05, memory=True) as watch:
        child = subprocess.Popen([sys.executable, "-c", BUSY], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        started.append(psutil.Process(child.pid))
        assert child.stdout is not None
        child.stdout.readline()
    child.communicate(b"\n")
    assert 0.5 < watch.cpu_s < 1.5
    assert 80 * 2**20 < watch.peak_bytes < 160 * 2**20


def test_a_watch_leaves_out_what_a_process_used_before() -> None:
    child = subprocess.Popen([sys.executable, "-c", BUSY], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    with Watch(lambda: [psutil.Process(child.pid)]) as watch:
        pass
    child.communicate(b"\n")
    assert watch.cpu_s < 0.1
