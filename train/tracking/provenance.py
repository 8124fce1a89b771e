"""Provenance of a training run for MLflow, beside its settings: code, packages and dataset.

The driver logs it at the start of each attempt, so it describes the attempt that made the model. The caller knows
which code runs.
"""

import json
import platform
import tempfile
from collections.abc import Mapping
from importlib.metadata import distributions
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.settings import Settings
from data.dataset import versions
from train.tracking import mlflow_runs

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput

DIFF, LOCK = "code/uncommitted.diff", "environment/requirements.txt"
"""Artifacts of the run."""
UNCOMMITTED_TAG = "raydiology.uncommitted"
NO_DIFF = {
    None: ("unknown", "# Unknown: the job was submitted without its checkout.\n"),
    "": ("clean", "# Clean: the code is that of the commit.\n"),
}
"""Tag and text when there is no difference to show."""
CONTEXTS = {"train": "training", "validation": "validation", "test": "test"}
"""Split → MLflow's name of it."""


def log(
    mlflow: "MlflowClient",
    run_id: str,
    settings: Settings,
    described: Mapping[str, Any],
    uncommitted: str | None,
) -> None:
    """Log code, packages and the two splits that training reads.

    Args:
        described: the manifest of the dataset version.
        uncommitted: diff of the code from its commit; empty: none; None: unknown.
    """
    mlflow.set_tag(run_id, UNCOMMITTED_TAG, NO_DIFF.get(uncommitted, ("changed", ""))[0])
    files = {LOCK: environment_lock(), DIFF: uncommitted or NO_DIFF[uncommitted][1]}
    with tempfile.TemporaryDirectory() as folder:
        for name, text in files.items():
            path = Path(folder) / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
            mlflow_runs.log_files(mlflow, run_id, [path], path.parent.name)
    log_dataset(mlflow, run_id, settings, described, "train", "validation")


def environment_lock() -> str:
    """Return the exact versions of all importable packages, below Python's own and the machine's."""
    names = {package.metadata["Name"]: package.version for package in distributions()}
    pins = [f"{name}=={names[name]}" for name in sorted(names, key=str.lower) if name]
    head = f"# Python {platform.python_version()}, {platform.platform()}, {platform.machine()}"
    return "\n".join([head, *pins]) + "\n"


def log_dataset(
    mlflow: "MlflowClient", run_id: str, settings: Settings, described: Mapping[str, Any], *splits: str
) -> None:
    """Log splits of a dataset version as inputs of the run; MLflow keeps one of each."""
    mlflow.log_inputs(run_id, [dataset_input(settings, described, split) for split in splits])


def dataset_input(settings: Settings, described: Mapping[str, Any], split: str) -> "DatasetInput":
    """Describe one split of a dataset version for MLflow's pages: name, digest, address, counts, columns.

    MLflow knows a dataset by name and digest and has one context for it, so each split has a name of its own.
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag
    from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

    version = described["version"]
    address = f"s3://{settings.bucket(versions.BUCKET)}/{version}/"
    rows = sum(part["rows"] for part in described["parts"] if part["split"] == split)
    by_class = described.get("counts", {}).get(split, {})
    profile = {"num_rows": rows} | {f"rows_{name}": count for name, count in by_class.items() if count}
    dataset = Dataset(
        name=f"raydiology-{split}",
        digest=version,
        source_type="s3",
        source=json.dumps({"uri": address}),
        profile=json.dumps(profile),
    )
    return DatasetInput(dataset, [InputTag(MLFLOW_DATASET_CONTEXT, CONTEXTS[split])])
