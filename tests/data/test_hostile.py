"""All of `hostile.py` goes through `data.sandbox.decoder`: each file ends as its kind may, within the limits,
and alone.
"""

import importlib.util
import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from data.catalog import inspection
from data.imaging.preprocess import BadImageError
from data.sandbox.decoder import Decoder, Limits
from data.sources import manifest
from data.sources.manifest import ManifestError

MEMORY_BYTES = 512 * 2**20
CPU_S = 2.0
FREED_BYTES = 4 * 2**20
"""What a child may have given back since its limit was set."""
START_CPU_S = 2.0
"""What starting one child may cost, its share of a busy machine's cold caches included."""


def load() -> Any:
    spec = importlib.util.spec_from_file_location("hostile", Path(__file__).with_name("hostile.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["hostile"] = module
    spec.loader.exec_module(module)
    return module


hostile = load()


class Watched:
    """A decoder whose children's use of processor and memory is read from the kernel."""

    def __init__(self, decoder: Decoder) -> None:
        self.decoder = decoder
        self.start_bytes = self._of_child().memory_info().rss

    def outcome(self, blob: bytes) -> tuple[str, int, float]:
        """How it ended, how many children it cost, and the processor time of all of them."""
        (before,), cpu_before_s = self.decoder.pids(), self._cpu_s()
        ended, message = "decodes", ""
        try:
            self.decoder.decode(blob)
        except BadImageError as error:
            ended, message = error.reason, str(error)
        assert "\n" not in message
        assert "SYNTHETIC" not in message
        self.wait_until_ready()
        (after,) = self.decoder.pids()
        return ended, int(before != after), self._cpu_s() - cpu_before_s

    def wait_until_ready(self) -> None:
        """A child that took another one's place may still be starting."""
        with pytest.raises(BadImageError, match="5 bytes"):
            self.decoder.decode(b"ready")

    def peak_bytes(self) -> int:
        status = Path("/proc", str(self.decoder.pids()[0]), "status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024

    def address_space(self) -> tuple[int, int]:
        """In use now, and the most that the kernel gives."""
        limits = Path("/proc", str(self.decoder.pids()[0]), "limits").read_text()
        return self._of_child().memory_info().vms, int(limits.split("Max address space")[1].split()[0])

    def _of_child(self) -> psutil.Process:
        return psutil.Process(self.decoder.pids()[0])

    def _cpu_s(self) -> float:
        """Of the child that lives and of those that have ended."""
        times, ended = self._of_child().cpu_times(), resource.getrusage(resource.RUSAGE_CHILDREN)
        return float(times.user + times.system) + ended.ru_utime + ended.ru_stime


@pytest.fixture(scope="module")
def watched() -> Iterator[Watched]:
    with Decoder(limits=Limits(memory_bytes=MEMORY_BYTES, cpu_s=CPU_S)) as decoder:
        yield Watched(decoder)


def test_there_are_enough_files_of_enough_kinds_and_the_seed_decides_them() -> None:
    small = [one for one in hostile.KINDS if "flipped" in one.name or "cut" in one.name]
    assert len(hostile.KINDS) >= 30
    assert len({one.name for one in hostile.KINDS}) == len(hostile.KINDS)
    for one in small:
        blobs = [list(one.make(hostile.np.random.default_rng(seed))) for seed in (0, 0, 1)]
        assert blobs[0] == blobs[1]
        assert ("flipped" in one.name) == (blobs[0] != blobs[2])


COUNTED: list[str] = []


@pytest.mark.parametrize("kind", hostile.KINDS, ids=lambda kind: kind.name)
def test_a_hostile_file_ends_as_its_kind_may_and_within_the_limits(watched: Watched, kind: Any) -> None:
    number = hostile.KINDS.index(kind)
    for nth, blob in enumerate(kind.make(hostile.np.random.default_rng((0, number)))):
        ended, lost, cpu_s = watched.outcome(blob)
        COUNTED.append(ended)
        assert ended in kind.outcomes, f"file {nth} of {kind.name} ended as {ended}"
        assert cpu_s <= (2 * CPU_S + 2 * START_CPU_S if lost else CPU_S), f"file {nth} took {cpu_s:.1f} s"
        assert watched.peak_bytes() <= watched.start_bytes + MEMORY_BYTES
    used_bytes, most_bytes = watched.address_space()
    assert most_bytes <= used_bytes + MEMORY_BYTES + FREED_BYTES


def test_the_whole_set_went_through(request: pytest.FixtureRequest) -> None:
    if len(request.session.items) < len(hostile.KINDS):
        pytest.skip("only a part of this file was asked for")
    assert len(COUNTED) >= 300
    assert COUNTED.count("crash") == 0
    assert len(set(COUNTED)) >= 10


def test_links_that_lead_elsewhere_are_refused_and_links_to_nothing_set_aside(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "outside.png").write_bytes(b"secret")
    links = {"out.png": "../outside.png", "absolute.png": "/etc/passwd", "up": ".."}
    inside = {"dangling.png": "nowhere.png", "loop.png": "loop.png", "self": "."}
    for name, target in (links | inside).items():
        (folder / name).symlink_to(target)
    header = ",".join(manifest.REQUIRED_COLUMNS)

    def listed(name: str) -> Path:
        (folder / "manifest.csv").write_text(f"{header}\n{name},normal,test,,,,,,\n")
        return folder

    for name in links:
        with pytest.raises(ManifestError, match="line 2"):
            manifest.read(listed(name))
    for name in ("dangling.png", "loop.png"):
        (row,) = manifest.read(listed(name)).rows
        assert inspection.inspect(row, b"k" * 32).reason in ("missing", "unreadable")
    with pytest.raises(ManifestError, match="line 2"):
        manifest.read(listed("self"))
