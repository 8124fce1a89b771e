"""What MLflow is told of code, packages and dataset; MLflow in a SQLite file."""

import json
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from mlflow import MlflowClient

from cluster.settings import Settings
from train.tracking import mlflow_runs, provenance

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's and SQLAlchemy's about themselves

DESCRIBED = {
    "version": "0123456789abcdef",
    "parts": [
        {"split": "train", "rows": 30},
        {"split": "train", "rows": 12},
        {"split": "validation", "rows": 6},
        {"split": "test", "rows": 5},
    ],
    "counts": {"train": {"normal": 40, "covid19": 2, "tuberculosis": 0}},
}


@dataclass(frozen=True)
class Buckets:
    """All of the settings that is asked for."""

    prefix: str = "site-"

    def bucket(self, name: str) -> str:
        return self.prefix + name


SETTINGS = cast(Settings, Buckets())


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> MlflowClient:
    folder = tmp_path_factory.mktemp("mlflow")
    made = mlflow_runs.client(f"sqlite:///{folder / 'mlflow.db'}")
    made.create_experiment(mlflow_runs.EXPERIMENT, artifact_location=(folder / "artifacts").as_uri())
    return made


def text_of(mlflow: MlflowClient, run_id: str, name: str, folder: Path) -> str:
    return Path(mlflow.download_artifacts(run_id, name, str(folder))).read_text()


def test_the_lock_names_python_and_each_package_once_in_order() -> None:
    head, *pins = provenance.environment_lock().splitlines()
    assert head.startswith(f"# Python {platform.python_version()}, {platform.platform()}")
    names = [one.split("==")[0] for one in pins]
    assert names == sorted(names, key=str.lower)
    assert len(names) == len({name.lower().replace("_", "-") for name in names}) > 100
    assert f"torch=={torch.__version__.split('+')[0]}" in {one.split("+")[0] for one in pins}


def test_each_side_of_a_dataset_version_is_an_input_once_with_its_counts_and_address(
    mlflow: MlflowClient,
) -> None:
    run_id = mlflow_runs.start_run(mlflow, "key/inputs", "inputs", {})
    for _ in range(2):
        provenance.log_dataset(mlflow, run_id, SETTINGS, DESCRIBED, "train", "validation")
    provenance.log_dataset(mlflow, run_id, SETTINGS, DESCRIBED, "test")
    found = {one.dataset.name: one for one in mlflow.get_run(run_id).inputs.dataset_inputs}
    contexts = {name: [tag.value for tag in one.tags] for name, one in found.items()}
    assert contexts == {
        "raydiology-train": ["training"],
        "raydiology-validation": ["validation"],
        "raydiology-test": ["test"],
    }
    assert len(mlflow.get_run(run_id).inputs.dataset_inputs) == 3
    training = found["raydiology-train"].dataset
    assert training.digest == DESCRIBED["version"]
    assert json.loads(training.source) == {"uri": "s3://site-datasets/0123456789abcdef/"}
    assert json.loads(training.profile) == {"num_rows": 42, "rows_normal": 40, "rows_covid19": 2}


@pytest.mark.parametrize(
    ("uncommitted", "tag", "text"),
    [("+ a line\n", "changed", "+ a line\n"), ("", "clean", "# Clean"), (None, "unknown", "# Unknown")],
)
def test_what_is_not_committed_is_told(
    mlflow: MlflowClient, tmp_path: Path, uncommitted: str | None, tag: str, text: str
) -> None:
    run_id = mlflow_runs.start_run(mlflow, f"key/{tag}", tag, {})
    provenance.log(mlflow, run_id, SETTINGS, DESCRIBED, uncommitted)
    tags: dict[str, Any] = mlflow.get_run(run_id).data.tags
    assert tags[provenance.UNCOMMITTED_TAG] == tag
    assert text_of(mlflow, run_id, provenance.DIFF, tmp_path).startswith(text)
    assert text_of(mlflow, run_id, provenance.LOCK, tmp_path) == provenance.environment_lock()


def test_a_later_attempt_with_other_code_is_what_is_told(mlflow: MlflowClient, tmp_path: Path) -> None:
    run_id = mlflow_runs.start_run(mlflow, "key/later", "later", {})
    provenance.log(mlflow, run_id, SETTINGS, DESCRIBED, "+ a line\n")
    provenance.log(mlflow, run_id, SETTINGS, DESCRIBED, "")
    assert mlflow.get_run(run_id).data.tags[provenance.UNCOMMITTED_TAG] == "clean"
    assert "a line" not in text_of(mlflow, run_id, provenance.DIFF, tmp_path)
