"""`data.sandbox.decoder`: what a file can do to a decoder ends a child and nothing else; good files cost no new child.

Hostile decoders are written into a folder of the test's own and loaded by the child by their import path.
"""

import io
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from data.imaging import preprocess
from data.imaging.masked_dicom import masked_stored
from data.imaging.preprocess import BadImageError, PixelConfig, UnknownTypeError
from data.sandbox import decoder as sandbox
from data.sandbox import process as sandbox_process
from data.sandbox.decoder import Decoder, Limits, SandboxError
from data.sandbox.gate import Gate
from tests.planted import plant

ROOT = Path(__file__).resolve().parents[3]
REAL = ROOT.parent / "shared" / "data" / "xrays" / "dicom"
CONFIG = PixelConfig(side=64)
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


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the hostile decoders are; readable for the child, which is nobody when we are root."""
    folder = tmp_path_factory.mktemp("decoders")
    (folder / "hostile_decoders.py").write_text(textwrap.dedent(HOSTILE) + f"\nGOOD = {png()!r}\n")
    return folder


@pytest.fixture(scope="module")
def hostile(folder: Path) -> Iterator[Decoder]:
    with Decoder(limits=QUICK, decoder="hostile_decoders:by_content", import_from=[folder]) as decoder:
        yield decoder


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    with Decoder() as decoder:
        yield decoder


def gone(pid: int, within_s: float = 10.0) -> bool:
    ends_at = time.monotonic() + within_s
    while time.monotonic() < ends_at:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.02)
    return False


def test_200_files_are_decoded_by_one_process_and_as_in_this_one(decoder: Decoder) -> None:
    before = decoder.pids()
    for seed in range(200):
        blob = png(seed % 7)
        if seed % 3:
            assert np.array_equal(decoder.to_pixels(blob, CONFIG), preprocess.to_pixels(blob, CONFIG))
        else:
            assert reason(lambda blob=blob: decoder.to_pixels(blob[:500], CONFIG)) == "truncated"
    assert decoder.pids() == before


def test_what_a_reviewer_has_waived_passes_in_a_child_too_and_nothing_else(decoder: Decoder) -> None:
    tiny, noise = png(side=20), png(side=160)
    assert reason(lambda: decoder.to_pixels(tiny, CONFIG)) == "too_small"
    released_HW = decoder.to_pixels(tiny, CONFIG, waived=("too_small",))
    assert np.array_equal(released_HW, preprocess.to_pixels(tiny, CONFIG, ("too_small",)))
    assert reason(lambda: decoder.to_pixels(noise, CONFIG, waived=("too_small",))) == "not_an_xray"
    passed_HW = decoder.to_pixels(noise, CONFIG, waived=["not_an_xray", "inverted"])
    assert np.array_equal(passed_HW, preprocess.to_pixels(noise, CONFIG))
    assert (
        reason(lambda: decoder.to_pixels(tiny[:200], CONFIG, waived=("too_small", "truncated")))
        == "truncated"
    )


def test_the_shown_image_and_its_kind_come_back(decoder: Decoder) -> None:
    ours, theirs = preprocess.decode(png()), decoder.decode(png())
    assert np.array_equal(ours.shown_HW, theirs.shown_HW)
    assert (theirs.kind, theirs.width, theirs.height) == (ours.kind, ours.width, ours.height)
    assert theirs.shown_HW.flags.writeable


@pytest.mark.skipif(not REAL.is_dir(), reason="the real X-rays are not here")
def test_real_dicom_files_of_every_encoding_give_the_same_pixels_in_a_child(decoder: Decoder) -> None:
    """A codec that loads a part of itself at its first file would fail there: nothing can be opened any more."""
    before, same = decoder.pids(), 0
    for path in sorted(REAL.glob("*.dcm")):
        blob = path.read_bytes()
        try:
            shown_HW = decoder.decode(blob).shown_HW
        except BadImageError as error:
            ended = error.reason
        else:
            ended = "decodes"
            same += np.array_equal(shown_HW, preprocess.decode(blob).shown_HW)
        expected = {
            "der_truncated": "truncated",
            "dx_no_pixel_data": "no_pixels",
            "nih_p2_wrong_modality": "not_an_xray",
        }
        assert ended == (expected | {"rsna_16d7f894_fake_mono1": "inverted"}).get(path.stem, "decodes")
    assert same == 16
    assert decoder.pids() == before


def test_the_stored_pixels_of_a_dicom_file_come_back_with_their_depth(decoder: Decoder) -> None:
    before, blob = decoder.pids(), plant(3).dicom
    ours_HW, theirs_HW = masked_stored(blob), decoder.stored(blob)
    assert theirs_HW.dtype == np.uint16
    assert int(theirs_HW.max()) > 255
    assert np.array_equal(ours_HW, theirs_HW)
    with pytest.raises(BadImageError) as refused:
        decoder.stored(blob[:900])
    assert refused.value.reason == "no_pixels"
    assert decoder.pids() == before


def test_a_refusal_keeps_its_type_and_message(decoder: Decoder) -> None:
    with pytest.raises(UnknownTypeError, match="11 bytes"):
        decoder.decode(b"hello there")


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        (b"loop", "too_slow"),
        (b"bomb", "too_much_memory"),
        (b"segfault", "crash"),
        (b"exit", "crash"),
        (b"kill", "crash"),
        (b"raise", "crash"),
    ],
)
def test_a_file_that_breaks_the_decoder_is_refused_and_the_next_one_decoded(
    hostile: Decoder, file: bytes, expected: str
) -> None:
    before = hostile.pids()
    with pytest.raises(BadImageError) as caught:
        hostile.decode(file)
    assert caught.value.reason == expected
    assert "DOE" not in str(caught.value)
    assert hostile.decode(png()).width == 80
    assert len(hostile.pids()) == len(before)
    assert hostile.pids() != before


def test_a_child_that_neither_answers_nor_computes_is_given_up(hostile: Decoder) -> None:
    assert reason(lambda: hostile.decode(b"sleep")) == "too_slow"


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


def test_what_an_earlier_file_left_behind_does_not_decide_about_a_later_one(hostile: Decoder) -> None:
    assert hostile.decode(b"once").width == 80
    assert hostile.decode(b"once").width == 80


def test_a_child_that_keeps_memory_is_replaced_after_the_file(hostile: Decoder) -> None:
    before = hostile.pids()
    for _ in range(4):
        assert hostile.decode(b"leak").width == 80
    assert hostile.pids() != before


@pytest.mark.parametrize("file", [b"open", b"connect", b"write"])
def test_the_child_can_open_no_file_and_no_socket(hostile: Decoder, file: bytes) -> None:
    with pytest.raises(BadImageError, match="OSError") as caught:
        hostile.decode(file)
    assert caught.value.reason == "crash"


@pytest.mark.skipif(os.geteuid() != 0, reason="only a child of root changes its user")
@pytest.mark.parametrize("file", [b"fork", b"parent"])
def test_the_child_of_root_is_nobody(hostile: Decoder, file: bytes) -> None:
    with pytest.raises(BadImageError, match=r"BlockingIOError|PermissionError"):
        hostile.decode(file)


def test_the_child_has_no_secret_no_descriptor_and_no_core_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret-of-the-platform")
    with (tmp_path / "open").open("wb") as inherited, Decoder() as decoder:
        os.set_inheritable(inherited.fileno(), True)
        (pid,) = decoder.pids()
        process = Path("/proc", str(pid))
        environment = (process / "environ").read_bytes()
        assert b"s3cret" not in environment + (process / "cmdline").read_bytes()
        assert "PATH" not in {entry.partition(b"=")[0].decode() for entry in environment.split(b"\0")}
        assert len(list((process / "fd").iterdir())) == 5
        limits = (process / "limits").read_text()
    for line in ("Max core file size        0", "Max file size             0", "Max open files            5"):
        assert line in limits


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


def test_closing_ends_the_children_and_later_files_are_an_error_of_ours() -> None:
    with Decoder(children=2) as decoder:
        pids = decoder.pids()
        assert len(pids) == 2
    assert all(gone(pid, within_s=0.1) for pid in pids)
    for _ in range(4):
        with pytest.raises(SandboxError, match="closed"):
            decoder.decode(png())


def test_many_threads_share_the_children(hostile: Decoder, folder: Path) -> None:
    files = [png(seed) for seed in range(40)] + [b"segfault", b"loop"]
    with (
        Decoder(
            children=2, limits=QUICK, decoder="hostile_decoders:by_content", import_from=[folder]
        ) as decoder,
        ThreadPoolExecutor(6) as pool,
    ):

        def one(blob: bytes) -> str:
            try:
                return str(decoder.decode(blob).width)
            except BadImageError as error:
                return error.reason

        outcomes = list(pool.map(one, files))
        assert len(decoder.pids()) == 2
    assert outcomes == ["80"] * 40 + ["crash", "too_slow"]


def test_a_second_attempt_is_alone() -> None:
    gate, seen, inside = Gate(), [], threading.Event()

    def together(number: int) -> None:
        with gate.together():
            seen.append(("in", number))
            inside.set()
            time.sleep(0.05)
            seen.append(("out", number))

    def alone() -> None:
        with gate.alone():
            seen.append(("in", -1))
            time.sleep(0.05)
            seen.append(("out", -1))

    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(together, 0)
        inside.wait()
        work = [pool.submit(alone), *(pool.submit(together, n) for n in (1, 2))]
        for one in [first, *work]:
            one.result()
    entered = seen.index(("in", -1))
    assert seen[entered + 1] == ("out", -1)
    assert ("out", 0) in seen[:entered]


def test_a_decoder_that_cannot_be_imported_is_an_error_of_ours() -> None:
    with pytest.raises(SandboxError, match="ModuleNotFoundError"):
        Decoder(decoder="no_such_module:decode")


@pytest.mark.parametrize("change", [{"cpu_s": 0}, {"memory_bytes": -1}, {"cpu_s_per_mb": -1}])
def test_impossible_limits_are_refused(change: dict[str, int]) -> None:
    with pytest.raises(ValueError):
        Limits(**change)


def test_a_pool_without_children_is_refused() -> None:
    with pytest.raises(ValueError):
        Decoder(children=0)


def test_an_answer_is_read_as_text_and_never_believed_blindly() -> None:
    told = {"type": "UnknownTypeError", "reason": "unknown_type", "message": "x" * 10_000}
    refusal = sandbox_process._refusal(told)
    assert isinstance(refusal, UnknownTypeError)
    assert len(str(refusal)) == sandbox_process.MESSAGE_CHARACTERS


def test_all_threads_of_a_process_share_one_decoder() -> None:
    try:
        with ThreadPoolExecutor(4) as pool:
            decoders = set(pool.map(lambda _: sandbox.process_decoder(), range(4)))
        (decoder,) = decoders
        assert len(decoder.pids()) == 1
    finally:
        sandbox.process_decoder().close()
        sandbox._started.cache_clear()
