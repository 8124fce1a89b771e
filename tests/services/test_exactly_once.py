"""Whatever is killed, and whenever: one version, the same as if nothing had happened, and never half of it.

A few kills run in the suite; `pytest tests/services/test_exactly_once.py --kills 10 -s` does ten, each followed by a
rerun and by a computation of its own from the originals under another prefix, and prints what each cost.
"""

import hashlib
import io
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster import progress
from cluster.embedded.home import Home
from cluster.embedded.process import Identity, is_alive, marked
from cluster.objects import ObjectStore
from cluster.settings import BUCKETS, Settings
from data.catalog import tables
from data.catalog.ingest import ingest
from data.catalog.originals import Originals
from data.dataset import versions
from data.dataset.parts import Part, StagingError, write_part
from data.dataset.rows import LogicalRow
from data.dataset.staging import ABANDONED_AFTER, Stage, abandoned, stage_block
from data.imaging.preprocess import PixelConfig
from jobs.bench import corpus

ROOT = Path(__file__).resolve().parents[2]
IMAGES = 480
AWAY_S = 3.0
LABELS = ("normal", "bacterial_pneumonia", "tuberculosis", "covid19")
VICTIMS = ("job", "store", "worker", "database")


@dataclass(frozen=True, kw_only=True)
class Ground:
    """A platform, and the same images ingested twice, under two prefixes."""

    home: Home
    env: dict[str, str]
    settings: Settings
    source: str
    restart: Callable[[], None]
    """Start again whatever of the platform was killed."""

    def again(self) -> "Ground":
        """The same images under another prefix, which no run was ever disturbed in."""
        prefix = f"{self.settings.bucket_prefix}again-"
        return replace(
            self,
            settings=replace(self.settings, bucket_prefix=prefix),
            env={**self.env, "RAYDIOLOGY_BUCKET_PREFIX": prefix},
        )


@dataclass(frozen=True)
class Undisturbed:
    """What a run that nothing happens to makes of the images, under the other prefix."""

    version: str
    rows: list[str]
    blocks: int
    seconds: float


@dataclass
class Job:
    """`python -m jobs.etl` as a process of its own."""

    process: subprocess.Popen[str]
    begun: threading.Event = field(default_factory=threading.Event)
    """Set when ETL is at work: what comes before is the start of Python and of Ray."""
    lines: list[str] = field(default_factory=list)
    seconds: float = 0.0
    """From then to the end."""

    def read(self) -> None:
        began_at = time.monotonic()
        with self.process as process:
            assert process.stdout is not None
            for line in process.stdout:
                self.lines.append(line.rstrip())
                if progress.parse(line) is not None and not self.begun.is_set():
                    began_at = time.monotonic()
                    self.begun.set()
        self.seconds = time.monotonic() - began_at
        self.begun.set()

    @classmethod
    def start(cls, ground: Ground, *arguments: str) -> tuple["Job", threading.Thread]:
        options = ["--etl.sources", json.dumps([ground.source]), "--etl.pixels.side", "128", *arguments]
        process = subprocess.Popen(
            [sys.executable, "-m", "jobs.etl", *options],
            cwd=ROOT,
            env=ground.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        job = cls(process)
        reader = threading.Thread(target=job.read)
        reader.start()
        return job, reader

    def report(self) -> dict[str, Any]:
        assert self.process.returncode == 0, "\n".join(self.lines[-30:])
        told: dict[str, Any] = json.loads(self.lines[-1])
        assert told["status"] == "ok"
        return told


def finished(ground: Ground, *arguments: str) -> tuple[dict[str, Any], float]:
    """Run the job undisturbed."""
    job, reader = Job.start(ground, *arguments)
    reader.join()
    return job.report(), job.seconds


def disturbed(ground: Ground, kill: Callable[[Job], bool], after_s: float) -> Job:
    """Run the job, and kill something `after_s` into it; wait for its end."""
    job, reader = Job.start(ground)
    job.begun.wait()
    time.sleep(after_s)
    while not kill(job) and job.process.poll() is None:
        time.sleep(0.05)
    ground.restart()
    reader.join()
    return job


def component(home: Home, name: str) -> Identity:
    return Identity(**json.loads(home.state_file.read_text())["components"][name])


def kill_component(ground: Ground, name: str) -> Callable[[Job], bool]:
    def kill(job: Job) -> bool:
        identity = component(ground.home, name)
        os.kill(identity.pid, signal.SIGKILL)
        while is_alive(identity):
            time.sleep(0.01)
        time.sleep(AWAY_S)
        return True

    return kill


def kill_worker(ground: Ground) -> Callable[[Job], bool]:
    def kill(job: Job) -> bool:
        for process in marked(ground.home.id, "ray"):
            try:
                title = " ".join(process.cmdline())
            except psutil.Error:
                continue
            if title.startswith("ray::") and ("MapBatches" in title or "write_part" in title):
                process.kill()
                return True
        return False

    return kill


def kill_job(job: Job) -> bool:
    job.process.kill()
    return True


def rows_of(settings: Settings, version: str) -> list[str]:
    """One digest a row, of everything that it holds, pixels too, in the order of the files."""
    store = ObjectStore(settings)
    digests = []
    for part in versions.manifest(store, version)["parts"]:
        table = pq.read_table(io.BytesIO(versions.read_part(store, version, part)))
        digests += [hashlib.sha256(repr(row).encode()).hexdigest() for row in table.to_pylist()]
    return digests


def forget(settings: Settings, version: str) -> None:
    """Remove what these tests made of it, so that the next run starts from the originals."""
    store = ObjectStore(settings)
    indices = [
        key
        for key in store.keys("datasets", "_index/")
        if store.get_json("datasets", key)["version"] == version
    ]
    store.delete("datasets", [*indices, *store.keys("datasets", f"{version}/")])


def staged_blocks(settings: Settings) -> int:
    keys = ObjectStore(settings).keys("datasets", "_staging")
    return sum(key.endswith(".parquet") and not key.endswith(".pixels.parquet") for key in keys)


def jpeg(seed: int, side: int = 640) -> bytes:
    return corpus.jpeg(seed, side)


@pytest.fixture(scope="module")
def ground(platform: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    folder = tmp_path_factory.mktemp("exactly-once")
    source = f"exactly-once-{uuid.uuid4().hex[:8]}"
    lines = ["path,label,source,patient_id,sex,age,view,license,sha256"]
    for nth in range(IMAGES):
        (folder / f"{nth}.jpg").write_bytes(jpeg(nth) if nth % 60 else jpeg(nth)[:-900])
        lines.append(f"{nth}.jpg,{LABELS[nth % 4]},{source},p{nth // 3},F,50,PA,CC0-1.0,")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")

    def restart() -> None:
        started = platform.command("up")
        assert started.returncode == 0, started.stdout + started.stderr

    here = Ground(
        home=platform.home, env=platform.env, settings=platform.settings, source=source, restart=restart
    )
    ObjectStore(here.again().settings).ensure_buckets(BUCKETS)
    for one in (here.settings, here.again().settings):
        ingest(folder, one)
    yield here
    restart()


@pytest.fixture(scope="module")
def undisturbed(ground: Ground) -> Undisturbed:
    report, seconds = finished(ground.again(), "--fresh")
    assert report["quarantined"] == {"truncated": IMAGES // 60}
    assert report["blocks"]["all"] > 1
    version = report["dataset_version"]
    return Undisturbed(version, rows_of(ground.again().settings, version), report["blocks"]["all"], seconds)


@pytest.mark.timeout(3600)
def test_killed_anywhere_it_ends_in_the_same_version(
    ground: Ground, undisturbed: Undisturbed, pytestconfig: pytest.Config
) -> None:
    kills = pytestconfig.getoption("--kills")
    chance = random.Random(pytestconfig.getoption("--kills-seed"))
    version, expected, total, calm_s = astuple(undisturbed)
    print(f"\nundisturbed {calm_s:.1f} s, {total} blocks, version {version}")
    for nth in range(kills):
        victim = VICTIMS[nth % len(VICTIMS)] if kills < len(VICTIMS) else chance.choice(VICTIMS)
        one_kill(ground, victim, chance.uniform(0, calm_s), version, expected, total)
        if kills > len(VICTIMS):
            forget(ground.again().settings, version)
            fresh, fresh_s = finished(ground.again(), "--fresh")
            assert fresh["dataset_version"] == version
            assert rows_of(ground.again().settings, version) == expected
            print(f"    --fresh under another prefix {fresh_s:.1f} s, same version and rows")
        forget(ground.settings, version)


@pytest.mark.timeout(600)
def test_a_node_that_dies_at_work_changes_nothing(ground: Ground, undisturbed: Undisturbed) -> None:
    """Three simulated nodes of one CPU, and a head that does no work, on the stores of the platform."""
    other = {name: value for name, value in ground.env.items() if not name.startswith("RAY_AUTH")}
    ended = subprocess.run(
        [sys.executable, "-m", "tests.services.etl_on_nodes", ground.source],
        cwd=ROOT,
        env={**other, "RAY_AUTH_MODE": "disabled"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[:3000]
    told = json.loads(ended.stdout.strip().splitlines()[-1])
    assert told["nodes"] == [4, 3]
    assert 0 < told["images_done_at_death"] < IMAGES
    assert told["version"] == undisturbed.version
    assert rows_of(ground.settings, told["version"]) == undisturbed.rows
    forget(ground.settings, told["version"])


def one_kill(
    ground: Ground, victim: str, after_s: float, version: str, expected: list[str], total: int
) -> None:
    settings, store = ground.settings, ObjectStore(ground.settings)
    kill = {
        "job": lambda: kill_job,
        "worker": lambda: kill_worker(ground),
        "store": lambda: kill_component(ground, "s3"),
        "database": lambda: kill_component(ground, "postgresql"),
    }[victim]()
    job = disturbed(ground, kill, after_s)
    killed = job.process.returncode == -signal.SIGKILL
    kept = staged_blocks(settings)
    if version in versions.names(store):
        assert rows_of(settings, version) == expected, "a version that can be seen is whole"
    if not killed:
        assert job.report()["dataset_version"] == version, "the run itself goes on"
    rerun, rerun_s = finished(ground)
    assert rerun["dataset_version"] == version
    assert rows_of(settings, version) == expected
    assert staged_blocks(settings) == 0
    redone = 0
    if killed and not rerun["reused"]:
        assert rerun["blocks"]["found_staged"] == kept, "what was staged is not done again"
        redone = total - kept
    how = "job died" if killed else f"run went on, {job.seconds:.1f} s"
    print(
        f"  {victim:<8} at {after_s:4.1f} s: {how}; rerun {rerun_s:.1f} s, {redone} of {total} blocks redone"
    )


@dataclass(frozen=True, kw_only=True)
class Block:
    stage: Stage
    rows: list[dict[str, Any]]
    part: Part
    """Of the good images among the rows."""
    whole: pa.Table
    """The outcome."""


@pytest.fixture
def stage(ground: Ground) -> Iterator[Stage]:
    made = Stage(
        settings=ground.settings,
        prefix=f"_staging/test-{uuid.uuid4().hex[:8]}",
        pixels=PixelConfig(side=32),
        fresh=False,
    )
    yield made
    store = ObjectStore(ground.settings)
    store.delete("datasets", store.keys("datasets", made.prefix))


@pytest.fixture
def block(ground: Ground, stage: Stage) -> Block:
    """One staged block, and a part that wants all of it."""
    with tables.opened(ground.settings) as connection:
        samples = tables.samples(connection, [ground.source], metadata=False)[:12]
    own = ("source", "sha256", "label", "view", "raw_key")
    rows = [{name: getattr(one, name) for name in own} | {"waived": []} for one in samples]
    outcome, found = stage_block(0, rows, stage)
    assert not found
    logical_rows = [
        LogicalRow(
            sample_hash=row["sample_hash"],
            label=asked["label"],
            label_index=0,
            group_key="g",
            split="train",
            source=row["source"],
            sha256=row["sha256"],
            sex=None,
            age=None,
            view=None,
            site=None,
        )
        for row, asked in zip(outcome.to_pylist(), rows, strict=True)
        if row["sample_hash"]
    ]
    in_order = tuple(sorted(logical_rows, key=lambda row: row.sample_hash))
    part = Part(key=f"{stage.prefix}/part.parquet", split="train", rows=in_order, blocks=(0,))
    return Block(stage=stage, rows=rows, part=part, whole=outcome)


def test_a_torn_outcome_is_computed_anew_and_a_whole_one_is_not(ground: Ground, block: Block) -> None:
    assert stage_block(0, block.rows, block.stage) == (block.whole, True)
    store, key = ObjectStore(ground.settings), block.stage.outcome_key(0)
    store.put("datasets", key, store.get("datasets", key)[:-20])
    assert stage_block(0, block.rows, block.stage) == (block.whole, False)


@pytest.mark.parametrize("damage", ["gone", "cut", "changed"])
def test_damaged_staged_pixels_never_reach_a_part(ground: Ground, block: Block, damage: str) -> None:
    store, key = ObjectStore(ground.settings), block.stage.pixels_key(0)
    written = write_part(block.part, block.stage)
    whole = store.get("datasets", block.part.key)
    store.delete("datasets", [block.part.key])
    if damage == "gone":
        store.delete("datasets", [key])
    elif damage == "cut":
        store.put("datasets", key, store.get("datasets", key)[:-20])
    else:
        table = pq.read_table(io.BytesIO(store.get("datasets", key)))
        other = pa.array([bytes(len(one)) for one in table["pixels"].to_pylist()])
        buffer = io.BytesIO()
        pq.write_table(table.set_column(table.schema.get_field_index("pixels"), "pixels", other), buffer)
        store.put("datasets", key, buffer.getvalue())
    assert write_part(block.part, block.stage) == written
    assert store.get("datasets", block.part.key) == whole


def test_an_original_that_gives_other_pixels_now_ends_the_run_with_advice(block: Block) -> None:
    stranger = replace(block.part.rows[0], sample_hash="0" * 64)
    part = replace(block.part, rows=(stranger, *block.part.rows))
    with pytest.raises(StagingError, match="other pixels now: run the same command with --fresh"):
        write_part(part, block.stage)


def test_a_written_part_with_its_receipt_is_not_written_again(ground: Ground, block: Block) -> None:
    store = ObjectStore(ground.settings)
    written = write_part(block.part, block.stage)
    store.put("datasets", block.part.key, b"x" * written["bytes"])
    assert write_part(block.part, block.stage) == written
    assert store.get("datasets", block.part.key) == b"x" * written["bytes"]
    store.put("datasets", block.part.key, b"torn")
    assert write_part(block.part, block.stage) == written
    assert len(store.get("datasets", block.part.key)) == written["bytes"]


def test_an_original_that_a_starting_store_calls_missing_is_looked_at_again(
    ground: Ground, block: Block
) -> None:
    originals = Originals.of(ground.settings)
    asked = next(row for row in block.rows if row["sha256"] == block.part.rows[0].sha256)
    blob = originals.get(asked["raw_key"])
    ObjectStore(ground.settings).delete("raw", [asked["raw_key"]])
    back = threading.Timer(0.7, originals.put, ("raw", asked["sha256"], blob))
    back.start()
    outcome, _ = stage_block(0, block.rows, replace(block.stage, fresh=True))
    back.join()
    assert outcome == block.whole


def test_what_a_run_has_staged_is_abandoned_when_nobody_finished_it_for_a_week(
    ground: Ground, block: Block
) -> None:
    store, objects = ObjectStore(ground.settings), block.stage.objects()
    staged = store.keys("datasets", block.stage.prefix)
    assert len(staged) == 2
    week = datetime.now(UTC) + ABANDONED_AFTER
    assert not set(staged) & set(abandoned(objects, now=week - timedelta(hours=1)))
    assert set(staged) <= set(abandoned(objects, now=week + timedelta(hours=1)))
