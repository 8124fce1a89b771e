"""Published datasets, from their folders or their publisher, into the real S3 server and PostgreSQL."""

import json
import shutil
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

import pytest

from cluster import progress
from cluster.embedded.home import Home
from cluster.settings import Settings
from data.catalog import intake, tables
from data.catalog.intake import IntakeError
from data.catalog.originals import Originals
from data.sources import registry
from data.sources.dataset_card import Download
from data.sources.manifest import ManifestError
from data.synthetic.generator import SyntheticConfig

ROOT = Path(__file__).resolve().parents[2]
KERMANY, RADIOGRAPHY, TB = "kermany-pneumonia", "covid-radiography", "tb-chest"
Miniature = Callable[[str, Path], Path]


class Platform(Protocol):
    home: Home
    env: dict[str, str]
    settings: Settings


@pytest.fixture
def settings(platform: Platform) -> Iterator[Settings]:
    """The platform's; what a test stored under a dataset's name is gone from the catalog afterwards."""
    yield platform.settings
    with tables.opened(platform.settings) as connection:
        for table in ("samples", "quarantine"):
            query = f"DELETE FROM {table} WHERE source = ANY(%s)"
            connection.execute(query.encode(), [list(registry.SOURCES)])


@pytest.fixture
def rows(settings: Settings) -> Callable[[str, str], list[dict[str, Any]]]:
    def read(table: str, source: str) -> list[dict[str, Any]]:
        with tables.opened(settings) as connection:
            query = f"SELECT * FROM {table} WHERE source = %s ORDER BY sha256"
            return connection.execute(query.encode(), [source]).fetchall()

    return read


def bring_in(settings: Settings, source: str, **known: Any) -> tuple[dict[str, Any], list[str]]:
    """What `python -m jobs.ingest` does; the report and what was said."""
    said: list[str] = []
    report = intake.bring_in(
        settings, source, SyntheticConfig(), report=progress.report, say=said.append, **known
    )
    return report, said


def run_job(platform: Platform, *arguments: str) -> tuple[int, dict[str, Any], str]:
    ran = subprocess.run(
        [sys.executable, "-m", "jobs.ingest", *arguments],
        cwd=ROOT,
        env=platform.env,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return ran.returncode, json.loads(ran.stdout.splitlines()[-1]), ran.stdout + ran.stderr


def test_two_datasets_are_stored_with_their_licences_and_a_second_run_stores_nothing(
    platform: Platform,
    settings: Settings,
    rows: Callable[[str, str], list[dict[str, Any]]],
    miniature: Miniature,
    tmp_path: Path,
) -> None:
    kermany, radiography = (miniature(name, tmp_path / name) for name in (KERMANY, RADIOGRAPHY))
    code, report, output = run_job(platform, "--source", KERMANY, "--folder", str(kermany))
    assert (code, report["status"], report["ingested"], report["quarantined"]) == (0, "ok", 12, 0), output
    card = registry.find(KERMANY).CARD
    assert all(line in output for line in card.summary())
    assert "chest_xray/chest_xray, a second copy of the set, was not read" in output
    stored = rows("samples", KERMANY)
    assert {row["license"] for row in stored} == {card.license}
    assert Counter(row["label"] for row in stored) == {
        "normal": 6,
        "bacterial_pneumonia": 4,
        "viral_pneumonia": 2,
    }
    assert len({row["patient_pseudonym"] for row in stored}) == 10
    assert {row["metadata"]["age_range"] for row in stored} == {"1-5"}
    assert "person" not in str(stored)
    files = {file.read_bytes() for file in (kermany / "chest_xray").rglob("*.[jJ][pP][eE][gG]")}
    originals = Originals.of(settings)
    assert {originals.get(row["raw_key"]) for row in stored} == files - {b"\x00\x05\x16\x07"}

    first, said = bring_in(settings, RADIOGRAPHY, folder=str(radiography))
    assert (first["ingested"], first["quarantined"], first["by_reason"]) == (12, 1, {"missing": 1})
    assert any("only COVID.metadata.xlsx names: 1" in line for line in said)
    stored = rows("samples", RADIOGRAPHY)
    assert {row["license"] for row in stored} == {registry.find(RADIOGRAPHY).CARD.license}
    assert Counter(row["metadata"].get("origin") for row in stored)["sirm.org"] == 2
    assert "senza-categoria" not in str(stored)
    (lost,) = rows("quarantine", RADIOGRAPHY)
    assert (lost["reason"], lost["detail"]) == (
        "missing",
        "COVID/images/COVID-3.png: the file does not exist",
    )

    again = [
        bring_in(settings, name, folder=str(where))[0]
        for name, where in ((KERMANY, kermany), (RADIOGRAPHY, radiography))
    ]
    assert [(one["ingested"], one["already"]) for one in again] == [(0, 12), (0, 12)]
    assert len(rows("quarantine", RADIOGRAPHY)) == 1


def test_a_file_that_the_publisher_has_under_two_labels_is_set_aside_and_the_rest_is_stored(
    settings: Settings,
    rows: Callable[[str, str], list[dict[str, Any]]],
    miniature: Miniature,
    tmp_path: Path,
) -> None:
    root = miniature(TB, tmp_path / "set") / "TB_Chest_Radiography_Database"
    shutil.copy(root / "Normal/Normal-1.png", root / "Tuberculosis/Tuberculosis-1.png")
    report, _ = bring_in(settings, TB, folder=str(root))
    assert (report["ingested"], report["by_reason"]) == (4, {"conflicting_label": 2, "missing": 2})
    conflicts = [row for row in rows("quarantine", TB) if row["reason"] == "conflicting_label"]
    assert len(conflicts) == 1
    assert conflicts[0]["object_key"]


def test_a_dicom_folder_is_stored_and_nothing_tells_whose_it_is(
    settings: Settings,
    rows: Callable[[str, str], list[dict[str, Any]]],
    miniature: Miniature,
    tmp_path: Path,
) -> None:
    folder = miniature("dicom-folder", tmp_path / "set")
    labels = (folder / "labels.csv").read_text()
    (folder / "labels.csv").write_text(labels.replace("clinic-a", "dicom-folder"))
    report, said = bring_in(settings, "dicom-folder", folder=str(folder))
    assert (report["ingested"], report["by_reason"]) == (3, {"missing": 1})
    stored, (lost,) = rows("samples", "dicom-folder"), rows("quarantine", "dicom-folder")
    assert lost["detail"] == "line 5 of labels.csv: the file does not exist"
    assert len({row["patient_pseudonym"] for row in stored}) == 2
    assert sorted((row["sex"], row["age"], row["license"]) for row in stored if row["sex"]) == [
        ("F", 60.0, "unknown"),
        ("F", 61.0, "ask us"),
    ]
    everything = f"{stored} {lost} {report} {said}"
    assert not any(
        secret in everything for secret in ("DOE", "Doe", "ROE", "MRN-4711", "19600229", "1.2.3.1")
    )


def test_a_dataset_is_fetched_from_its_publisher_through_a_broken_connection(
    settings: Settings,
    miniature: Miniature,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    miniature(TB, tmp_path / "theirs")
    body = Path(shutil.make_archive(str(tmp_path / "archive"), "zip", tmp_path / "theirs")).read_bytes()
    asked: list[str | None] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.headers.get("Range"))
            start = int((asked[-1] or "bytes=0-")[6:-1])
            self.send_response(206 if start else 200)
            self.send_header("ETag", '"one"')
            self.send_header("Content-Length", str(len(body) - start))
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
            self.end_headers()
            self.wfile.write(body[start:] if start else body[: len(body) // 2])

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    adapter = registry.find(TB)
    url = f"http://127.0.0.1:{server.server_address[1]}/tb"
    card = replace(
        adapter.CARD,
        downloads=(Download(url=url, page="", file_name="tb-chest-3.zip", access="open", bytes=len(body)),),
    )
    monkeypatch.setitem(registry.SOURCES, TB, SimpleNamespace(CARD=card, list_images=adapter.list_images))
    try:
        report, said = bring_in(settings, TB, folder=str(tmp_path / "ours"), download=True)
        again, _ = bring_in(settings, TB, folder=str(tmp_path / "ours"), download=True)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert (report["ingested"], again["ingested"], again["already"]) == (6, 0, 6)
    assert asked == [None, f"bytes={len(body) // 2}-"]
    assert any("tb-chest-3.zip is complete, verified by size" in line for line in said)
    assert sorted(one.name for one in (tmp_path / "ours").iterdir() if one.suffix != ".lock") == [
        "tb-chest-3",
        "tb-chest-3.zip",
    ]


def test_another_layout_and_an_unknown_name_are_one_line_and_store_nothing(
    platform: Platform,
    settings: Settings,
    rows: Callable[[str, str], list[dict[str, Any]]],
    miniature: Miniature,
    tmp_path: Path,
) -> None:
    code, report, _ = run_job(platform, "--source", "kermany")
    assert (code, report["status"]) == (1, "failed")
    assert "the sources are synthetic, kermany-pneumonia, covid-radiography" in report["error"]
    root = miniature(KERMANY, tmp_path / "set") / "chest_xray"
    (root / "train/OTHER").mkdir()
    with pytest.raises(ManifestError, match="unknown folder 'OTHER'"):
        bring_in(settings, KERMANY, folder=str(root))
    with pytest.raises(
        IntakeError, match=r"is not in .*: give its folder with --folder; .* --download` fetches it"
    ):
        bring_in(settings, KERMANY, folder=str(tmp_path / "nowhere"))
    with pytest.raises(IntakeError, match="nobody publishes dicom-folder"):
        bring_in(settings, "dicom-folder", folder=str(tmp_path), download=True)
    with pytest.raises(ValueError, match="go with a dataset's name"):
        bring_in(settings, str(tmp_path), download=True)
    assert rows("samples", KERMANY) == []
