"""A decoding child process is limited, replaced and ended with its parent."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from data.imaging.preprocess import UnknownTypeError
from data.sandbox import process as sandbox_process
from data.sandbox.decoder import Decoder, Limits
from tests.data.sandbox.hostile_files import gone, png

ROOT = Path(__file__).resolve().parents[3]


def test_only_processor_time_counts_against_a_file(folder: Path) -> None:
    """Wall time passes while the child is stopped; it uses no processor, and the file is not to blame."""
    limits = Limits(cpu_s=0.3, wall_s=30.0)
    with Decoder(limits=limits, decoder="hostile_decoders:by_content", import_from=[folder]) as decoder:
        (pid,) = decoder.pids()
        with ThreadPoolExecutor(1) as pool:
            os.kill(pid, signal.SIGSTOP)
            waiting = pool.submit(decoder.decode, b"cpu")
            time.sleep(1.0)
            os.kill(pid, signal.SIGCONT)
            assert waiting.result().width == 80
        assert decoder.pids() == [pid]


def test_a_larger_file_may_take_longer() -> None:
    limits = Limits(cpu_s=2.0, free_bytes=2**20, cpu_s_per_mb=0.5)
    assert [limits.cpu_s_of(size) for size in (10, 2**20, 3 * 2**20)] == [2.0, 2.0, 3.0]


def test_a_child_killed_in_the_middle_costs_a_second_attempt_and_no_image(folder: Path) -> None:
    """The kernel kills when memory is short; the file has no part in it."""
    limits = Limits(cpu_s=5.0)
    with Decoder(limits=limits, decoder="hostile_decoders:by_content", import_from=[folder]) as decoder:
        (pid,) = decoder.pids()
        with ThreadPoolExecutor(1) as pool:
            os.kill(pid, signal.SIGSTOP)
            waiting = pool.submit(decoder.decode, png())
            time.sleep(0.1)
            os.kill(pid, signal.SIGKILL)
            assert waiting.result().width == 80
        assert gone(pid)
        assert pid not in decoder.pids()


def test_a_child_that_keeps_memory_is_replaced_after_the_file(hostile: Decoder) -> None:
    before = hostile.pids()
    for _ in range(4):
        assert hostile.decode(b"leak").width == 80
    assert hostile.pids() != before


def test_no_child_outlives_a_parent_that_is_killed(tmp_path: Path) -> None:
    """Also while it is in the middle of a file that never ends: nobody is there to read its answer."""
    (tmp_path / "endless.py").write_text("def loop(blob):\n    while True:\n        pass\n")
    code = f"""
        import sys, threading
        sys.path.insert(0, {str(ROOT)!r})
        from pathlib import Path
        from data.sandbox.decoder import Decoder, Limits
        decoder = Decoder(children=2, limits=Limits(cpu_s=600), decoder="endless:loop",
                          import_from=[Path({str(tmp_path)!r})])
        threading.Thread(target=decoder.decode, args=(b"x",)).start()
        print(*decoder.pids(), flush=True)
    """
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True
    )
    with parent:
        assert parent.stdout is not None
        pids = [int(word) for word in parent.stdout.readline().split()]
        parent.kill()
    assert len(pids) == 2
    assert all(gone(pid) for pid in pids)


def test_an_answer_is_read_as_text_and_never_believed_blindly() -> None:
    told = {"type": "UnknownTypeError", "reason": "unknown_type", "message": "x" * 10_000}
    refusal = sandbox_process._refusal(told)
    assert isinstance(refusal, UnknownTypeError)
    assert len(str(refusal)) == sandbox_process.MESSAGE_CHARACTERS
