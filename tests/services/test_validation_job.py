"""A bad batch halts `jobs.etl`, is told to a webhook and reported, and `jobs.train` refuses what came of it."""

import csv
import io
import json
import subprocess
import sys
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest
from PIL import Image

from cluster.objects import ObjectStore
from cluster.settings import Settings
from data.catalog import tables
from data.catalog.ingest import ingest
from data.dataset import versions
from data.dataset.etl import EtlConfig
from data.imaging.preprocess import PixelConfig
from data.sources.manifest import REQUIRED_COLUMNS
from data.validation import acceptance
from data.validation.config import ValidationConfig
from jobs.etl import run_etl
from jobs.runtime import entry
from jobs.train import run_train
from train.config import TrainConfig

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
    pytest.mark.usefixtures("ray_local"),
]

ROOT = Path(__file__).resolve().parents[2]
LABELS = ("normal", "bacterial_pneumonia", "tuberculosis")
BATCH = 72


class Platform(Protocol):
    settings: Settings
    env: dict[str, str]


class Clinic:
    """One source that sends batch after batch, a patient an image."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.folder, self.settings = folder, settings
        self.source = f"clinic-{uuid.uuid4().hex[:12]}"
        self.rng = np.random.default_rng(uuid.uuid4().int)
        self.rows: list[dict[str, str]] = []

    def send(self, *, white_share: float = 0.0) -> None:
        for n in range(BATCH):
            image_HW = self.rng.normal(110, 30, (40, 40)).clip(0, 255)
            if n < white_share * BATCH:
                image_HW = (image_HW + 170).clip(0, 255)
            buffer = io.BytesIO()
            Image.fromarray(image_HW.astype(np.uint8)).save(buffer, "png")
            number = len(self.rows)
            (self.folder / f"{number}.png").write_bytes(buffer.getvalue())
            self.rows.append(
                {
                    "path": f"{number}.png",
                    "label": LABELS[n % 3],
                    "source": self.source,
                    "patient_id": f"{self.source}-{number}",
                    "sex": "FM"[n % 2],
                    "age": str(30 + n % 40),
                    "view": "PA",
                    "license": "CC0-1.0",
                }
            )
        self.ingest()

    def ingest(self) -> None:
        with (self.folder / "manifest.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, REQUIRED_COLUMNS, restval="")
            writer.writeheader()
            writer.writerows(self.rows)
        ingest(self.folder, self.settings)

    def etl(self, **changes: Any) -> dict[str, Any]:
        return run_etl(
            self.settings,
            EtlConfig(pixels=PixelConfig(side=32), sources=(self.source,)),
            fresh=False,
            validation=ValidationConfig(**changes),
        )


@pytest.fixture
def clinic(platform: Platform, tmp_path: Path) -> Clinic:
    return Clinic(tmp_path, platform.settings)


def job(platform: Platform, *arguments: str, **env: str) -> tuple[int, dict[str, Any], str]:
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        env={**platform.env, **env},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return done.returncode, json.loads(done.stdout.splitlines()[-1]), done.stdout + done.stderr


def test_a_bad_batch_halts_is_told_and_reported_and_no_model_is_trained_on_it(
    platform: Platform, clinic: Clinic, listen: Any
) -> None:
    clinic.send()
    first = clinic.etl()
    assert first["validation"]["accepted"] is True
    assert first["validation"]["baseline"] is None
    assert first["validation"]["not_evaluable"] == ["baseline"]
    clinic.send()
    second = clinic.etl()
    assert second["validation"]["accepted"] is True
    assert second["validation"]["baseline"] == first["dataset_version"]
    assert "shift_new_mean" in second["validation"]["pass"]
    assert clinic.etl()["validation"] == {
        "accepted": True,
        "baseline": None,
        "report": second["validation"]["report"],
        "kept": True,
    }
    clinic.send(white_share=0.5)
    webhook = listen(500, 200)
    arguments = ["--etl.pixels.side", "32", "--etl.sources", json.dumps([clinic.source])]
    code, line, printed = job(platform, "jobs.etl", *arguments, RAYDIOLOGY_ALERT_WEBHOOK=webhook.url)
    assert (code, line["status"]) == (3, "halted"), printed
    version = line["dataset_version"]
    assert "shift_new_mean" in line["validation"]["fail"]
    assert line["validation"]["baseline"] == second["dataset_version"]
    assert line["validation"]["alert"] == "delivered"
    assert len(webhook.bodies) == 2
    alert = webhook.bodies[-1]
    assert (alert["event"], alert["dataset_version"]) == ("dataset_halted", version)
    assert {one["check"] for one in alert["failed"]} == {*line["validation"]["fail"]}
    assert alert["report"] == line["validation"]["report"]
    assert f"{clinic.source}-" not in json.dumps(alert) + printed
    store = ObjectStore(platform.settings)
    report = store.get_json("datasets", f"{version}/validation.json")
    assert report["accepted"] is False
    assert {one["name"] for one in report["checks"] if one["verdict"] == "fail"} == {
        *line["validation"]["fail"]
    }
    page = store.get("datasets", f"{version}/validation.html").decode()
    assert "may not be trained on" in page
    code, line, printed = job(platform, "jobs.train", "--dataset_version", version)
    assert (code, line["status"]) == (3, "halted"), printed
    assert f"dataset version {version} failed its checks" in line["why"]
    assert "model_version" not in line
    acceptance.accept(platform.settings, version, by="Dr. A", note="a new detector")
    assert acceptance.accepted(platform.settings, version) is True
    with tables.opened(platform.settings) as connection:
        audit = connection.execute("SELECT * FROM audit WHERE subject = %s", [version]).fetchall()
    assert [(row["actor"], row["action"]) for row in audit] == [("Dr. A", "accept_dataset")]
    assert clinic.etl()["validation"]["kept"] is True


def test_a_class_that_is_gone_halts_although_nobody_listens(clinic: Clinic) -> None:
    clinic.send()
    clinic.etl()
    for row in clinic.rows:
        row["label"] = row["label"].replace("tuberculosis", "normal")
    clinic.ingest()
    with pytest.raises(entry.Halted, match="lost_classes: no image any more of: tuberculosis") as halted:
        clinic.etl()
    validation = halted.value.report["validation"]
    assert "lost_classes" in validation["fail"]
    assert validation["alert"] == "not delivered: RAYDIOLOGY_ALERT_WEBHOOK is not set"
    with pytest.raises(entry.Halted, match="lost_classes"):
        clinic.etl()


def test_a_first_version_may_fail_too_and_a_webhook_that_is_away_masks_nothing(
    platform: Platform, clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.alerts.BACKOFF_S", 0.01)
    clinic.settings = replace(platform.settings, alert_webhook="http://127.0.0.1:9/nobody")
    clinic.send()
    with pytest.raises(entry.Halted, match=r"license: not among the allowed licences: 'CC0-1\.0'") as halted:
        clinic.etl(licenses=("CC BY*",))
    assert halted.value.report["validation"]["alert"].startswith("not delivered: ConnectError")


def test_a_version_that_nobody_validated_is_refused_until_somebody_does(
    platform: Platform, clinic: Clinic
) -> None:
    clinic.send()
    made = run_etl(
        platform.settings,
        EtlConfig(pixels=PixelConfig(side=32), sources=(clinic.source,)),
        fresh=False,
        validation=None,
    )
    assert "validation" not in made
    with pytest.raises(entry.JobError, match=r"was not validated: run `python -m jobs\.etl`"):
        run_train(platform.settings, TrainConfig(), made["dataset_version"], run=None, fresh=False)
    with pytest.raises(versions.VersionError, match="was not validated"):
        acceptance.accept(platform.settings, made["dataset_version"], by="t", note=None)
    assert clinic.etl()["validation"]["accepted"] is True
