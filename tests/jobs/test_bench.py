"""The measuring instruments of `make bench` measure."""

import os
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest

from data.preprocess import PixelConfig, decode, to_pixels
from jobs import bench_corpus, bench_export
from jobs.bench_figure import Figure
from jobs.bench_platform import Watch

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


@pytest.mark.parametrize("draw", [bench_corpus.jpeg, bench_corpus.dicom, bench_corpus.small_jpeg])
def test_the_corpus_is_of_usable_images_that_all_differ(draw: bench_corpus.Draw) -> None:
    one, other = draw(1), draw(2)
    assert draw(1) == one
    assert decode(one).width == (128 if draw is bench_corpus.small_jpeg else 1024)
    pixels = PixelConfig(side=96)
    assert to_pixels(one, pixels).tobytes() != to_pixels(other, pixels).tobytes()


def test_a_ratio_is_ours_over_the_peer_s() -> None:
    assert Figure.of("x", 1.0, 3.0, "peer", "s").ratio == 0.333


def test_images_a_core_second_are_counted_on_one_core_and_the_others_come_back() -> None:
    class Model:
        def __init__(self, seconds: float) -> None:
            self.seconds = seconds
            self.cores: set[int] = set()

        def logits(self, inputs_NCHW: np.ndarray) -> np.ndarray:
            self.cores |= os.sched_getaffinity(0)
            end_s = time.process_time() + self.seconds
            while time.process_time() < end_s:
                pass
            return inputs_NCHW

    before = os.sched_getaffinity(0)
    models = {"slow": Model(0.02), "fast": Model(0.005)}
    rates = bench_export.images_per_core_s(models, np.zeros((4, 1, 2, 2), np.float32))
    assert rates["slow"] == pytest.approx(200, rel=0.2)
    assert rates["fast"] == pytest.approx(800, rel=0.2)
    assert all(len(one.cores) == 1 for one in models.values())
    assert os.sched_getaffinity(0) == before
