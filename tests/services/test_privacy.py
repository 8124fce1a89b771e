"""Identifiers in headers, private tags, UIDs, file names and pixels go in; a search of every byte finds none.

Two invented patients go through `jobs.ingest`, `jobs.etl` and `--export` as a user would run them. What is
searched: every object of every bucket (originals as they lie there, sealed), every row of every table of both
databases, every file below the platform's home – the servers' own files and all logs among them –, what the
jobs printed, the metrics pages, and the exported folder. The patients are invented anew in each run, so objects and
files that were last written before it are not read.
"""

import csv
import io
import json
import os
import stat
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import mlflow
import numpy as np
import psutil
import pytest
from PIL import Image
from psycopg import sql

from cluster.database import connect
from cluster.embedded.credentials import load_or_generate
from cluster.objects import ObjectStore
from cluster.settings import BUCKETS
from data.catalog import tables as catalog
from data.catalog.ingest import ingest
from data.dataset import versions
from data.dataset.split import SPLITS
from data.privacy import export
from data.sources.manifest import REQUIRED_COLUMNS
from tests.planted import Planted, plant

ROOT = Path(__file__).resolve().parents[2]
LARGEST_FILE_BYTES = 512 * 2**20


@dataclass(frozen=True, kw_only=True)
class Run:
    """What went through, and what the jobs printed."""

    begun_at: datetime
    source: str
    patients: list[Planted]
    printed: bytes
    version: str
    exported: Path


def job(platform: Any, *arguments: str) -> tuple[dict[str, Any], bytes]:
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        env=platform.env,
        capture_output=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1]), done.stdout + done.stderr


@pytest.fixture(scope="module")
def run(platform: Any, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("planted")
    source = f"privacy-{uuid.uuid4().hex[:8]}"
    begun_at = datetime.now(UTC) - timedelta(seconds=2)  # the store's times are whole seconds
    patients = [plant(uuid.uuid4().int % 2**32) for _ in range(2)]
    rows = []
    for n, one in enumerate(patients):
        for kind, blob in (("dcm", one.dicom), ("png", one.png), ("jpg", one.dicom[:700])):
            name = f"{one.file_stem}-{n}.{kind}"
            (folder / name).write_bytes(blob)
            patient = one.needles["patient id"].decode() if kind == "png" else ""
            rows.append([name, "normal", source, patient, "", "", "", "CC0-1.0", "", one.column])
    with (folder / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows([[*REQUIRED_COLUMNS, "remark"], *rows])
    told, printed = job(platform, "jobs.ingest", "--source", str(folder))
    assert told["ingested"] == 6
    made, more = job(
        *(platform, "jobs.etl", "--etl.sources", f"[{source}]", "--etl.pixels.side", "256"),
        *("--validate", "false"),  # six images are too few to train on
    )
    assert sum(sum(split.values()) for split in made["counts"].values()) == 4
    assert sum(made["quarantined"].values()) == 2, "the two cut files"
    exported = tmp_path_factory.mktemp("out") / "copies"
    copied, last = job(
        platform, "jobs.ingest", "--export", str(exported), "--sources", f"[{source}]", "--dicom"
    )
    assert (copied["exported"], sum(copied["refused"].values())) == (4, 2)
    return Run(
        begun_at=begun_at,
        source=source,
        patients=patients,
        printed=printed.replace(str(folder).encode(), b"") + more + last,
        version=made["dataset_version"],
        exported=exported,
    )


def found(run: Run, blob: bytes) -> list[str]:
    return [place for one in run.patients for place in one.found_in(blob)]


def edges(pixels_HW: np.ndarray) -> float:
    """Mean step from one pixel to the next: letters are full of edges, a soft picture has none."""
    return float(np.abs(np.diff(pixels_HW.astype(int), axis=1)).mean())


def objects(platform: Any, run: Run) -> Iterator[tuple[str, bytes]]:
    """Those that were written since the run began."""
    store = ObjectStore(platform.settings)
    for bucket in BUCKETS:
        root = store.path(bucket, "")
        for path, one in store._fs.find(root, detail=True).items():
            if one["LastModified"] >= run.begun_at:
                key = path.removeprefix(root)
                yield f"{bucket}/{key}", store.get(bucket, key)


def tables(platform: Any) -> Iterator[tuple[str, bytes]]:
    """Every row of every table of both databases, as text."""
    ours = platform.settings.database_url
    server = ours.rsplit("@", 1)[1].rsplit("/", 1)[0]
    password = load_or_generate(platform.home).mlflow_password
    for url in (ours, f"postgresql://mlflow:{password}@{server}/mlflowdb"):
        with connect(url) as connection:
            names = connection.execute(
                "SELECT table_schema AS s, table_name AS t FROM information_schema.tables "
                "WHERE table_schema NOT IN ('pg_catalog', 'information_schema') AND table_type = 'BASE TABLE'"
            ).fetchall()
            for name in names:
                query = sql.SQL("SELECT x::text AS row FROM {} x").format(
                    sql.Identifier(name["s"], name["t"])
                )
                rows = connection.execute(query).fetchall()
                yield f"{name['s']}.{name['t']}", "\n".join(row["row"] for row in rows).encode()


def test_no_object_of_the_store_holds_an_identifier_in_key_or_content(platform: Any, run: Run) -> None:
    seen = dict(objects(platform, run))
    assert {name.split("/")[0] for name in seen} >= {"raw", "datasets", "quarantine"}
    assert {name: places for name, blob in seen.items() if (places := found(run, name.encode() + blob))} == {}


def test_the_search_would_find_one(platform: Any, run: Run) -> None:
    store = ObjectStore(platform.settings)
    key = f"_probe/{uuid.uuid4().hex}"
    third = plant(uuid.uuid4().int % 2**32)  # not one of the two: a deleted object stays on the server's disk
    store.put("datasets", key, b"..." + third.needles["study uid"] + b"...")
    try:
        hits = {name: third.found_in(blob) for name, blob in objects(platform, run) if third.found_in(blob)}
        assert hits == {f"datasets/{key}": ["study uid"]}
    finally:
        store.delete("datasets", [key])


def test_no_row_of_any_table_holds_an_identifier(platform: Any, run: Run) -> None:
    seen = dict(tables(platform))
    assert run.source.encode() in seen["public.samples"]
    assert {"public.samples", "public.quarantine", "public.experiments"} <= seen.keys()
    assert {name: places for name, text in seen.items() if (places := found(run, text))} == {}


def test_mlflow_has_none(platform: Any, run: Run) -> None:
    client = mlflow.MlflowClient(platform.settings.mlflow_tracking_uri)
    told = [client.search_runs([one.experiment_id]) for one in client.search_experiments()]
    assert found(run, repr(told).encode()) == []


def test_what_the_jobs_printed_and_the_metrics_pages_have_none(platform: Any, run: Run) -> None:
    assert found(run, run.printed) == []
    pages = []
    for target in json.loads(_ray_targets(platform).read_text()):
        for address in target["targets"]:
            pages.append(httpx.get(f"http://{address}/metrics", timeout=10).content)
    assert any(b"ray_" in page for page in pages)
    assert found(run, b"".join(pages)) == []


def _ray_targets(platform: Any) -> Path:
    session = (platform.home.path / "logs" / "ray_session").resolve().parent
    return next(session.parent.glob("**/prom_metrics_service_discovery.json"))


def test_no_file_of_the_platform_holds_one_neither_logs_nor_the_servers_own(platform: Any, run: Run) -> None:
    session = (platform.home.path / "logs" / "ray_session").resolve().parent
    looked, hits = 0, {}
    for folder in (platform.home.path, session):
        for path in folder.rglob("*"):
            try:
                known = path.lstat()
                if not stat.S_ISREG(known.st_mode) or known.st_size > LARGEST_FILE_BYTES:
                    continue
                blob = path.read_bytes() if known.st_mtime >= run.begun_at.timestamp() else b""
            except FileNotFoundError:
                continue
            looked += bool(blob)
            if places := found(run, blob):
                hits[str(path)] = places
    assert looked > 50
    assert hits == {}


def test_the_catalog_knows_what_the_header_told_and_ties_a_patients_files_together(
    platform: Any, run: Run
) -> None:
    with catalog.opened(platform.settings) as connection:
        samples = catalog.samples(connection, [run.source])
    told = [one for one in samples if "body_part" in one.metadata]
    assert len(told) == 2, "of the files that are cut, the header ends before"
    for one in told:
        assert (one.sex, one.age, one.view) == ("F", 90, "PA")
        assert one.metadata["device_class"] == "FUJI DX"
        assert one.metadata["body_part"] == "CHEST"
    assert len({one.patient_pseudonym for one in told}) == 2


def test_pixels_of_the_dataset_and_of_the_copies_show_no_text(platform: Any, run: Run) -> None:
    store = ObjectStore(platform.settings)
    for table in (versions.load_split(store, run.version, split) for split in SPLITS):
        for pixels_HW in table.pixels_NHW:
            assert edges(pixels_HW[34:48, 6:150]) < 8
    with (run.exported / "manifest.csv").open() as file:
        manifest = list(csv.DictReader(file))
    assert len(manifest) == 4
    for row in manifest:
        with Image.open(run.exported / row["path"]) as image:
            shown_HW = np.asarray(image)
        assert edges(shown_HW[8:28, 8:170]) < 4
    files = [path for path in run.exported.rglob("*") if path.is_file()]
    assert sum(path.suffix == ".dcm" for path in files) == 2
    for path in files:
        assert found(run, str(path.relative_to(run.exported)).encode() + path.read_bytes()) == []
    before_HW = np.asarray(Image.open(io.BytesIO(run.patients[0].png)))
    assert edges(before_HW[8:28, 8:170]) > 20


def test_an_export_decodes_in_a_child_a_core_and_leaves_none_behind(
    platform: Any, run: Run, tmp_path: Path
) -> None:
    def children() -> set[psutil.Process]:
        return set(psutil.Process().children())

    before = children()
    at_work: list[int] = []
    done = export.export(
        platform.settings,
        tmp_path / "copies",
        sources=[run.source],
        progress=lambda *_: at_work.append(len(children() - before)),
    )
    assert at_work == [min(len(os.sched_getaffinity(0)), done.exported + sum(done.refused.values()))]
    assert children() <= before


def test_the_exported_folder_can_be_ingested_again_and_a_full_folder_is_refused(
    platform: Any, run: Run
) -> None:
    assert ingest(run.exported, platform.settings).ingested == 4
    again = subprocess.run(
        [sys.executable, "-m", "jobs.ingest", "--export", str(run.exported)],
        cwd=ROOT, env=platform.env, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert again.returncode == 1
    assert "is not an empty folder" in again.stderr
