"""The files that make a release bundle an MLflow model too: `mlflow.pyfunc.load_model` loads it from the store.

`train.release.publish` adds them to every version. The model is code and safetensors ("models from code"), never a
pickle; its `requirements.txt` is the lock of the environment that trained it. The same version gives the same
bytes.
"""

import platform
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from cluster.releases.registry import VIT
from data.model_card import CARD_FILE, WEIGHTS_FILE
from train.release.edge_runner import runner

MODEL, CODE, RUNNER = "MLmodel", "mlflow_model.py", "predict.py"
REQUIREMENTS, PYTHON_ENV, CONDA = "requirements.txt", "python_env.yaml", "conda.yaml"
DIRECT = ("mlflow", "torch", "timm", "safetensors", "numpy", "pandas", "pillow", "boto3")
"""Packages that loading and predicting import; MLflow reaches the object store through boto3."""
SOURCE = Path(__file__).with_name("mlflow_model.py")
SET_MODEL = "\n\nfrom mlflow.models import set_model  # noqa: E402\n\nset_model(XrayVit())\n"


def files(run_id: str) -> dict[str, bytes]:
    """Make the files that lie beside card and weights, by name.

    Args:
        run_id: the MLflow run that trained the model.
    """
    texts = {
        MODEL: _description(run_id),
        CODE: SOURCE.read_text() + SET_MODEL,
        RUNNER: runner(),
        REQUIREMENTS: "".join(f"{requirement}\n" for requirement in locked(DIRECT)),
        PYTHON_ENV: _yaml({"python": platform.python_version(), "dependencies": [f"-r {REQUIREMENTS}"]}),
        CONDA: _yaml(
            {
                "name": VIT,
                "channels": ["conda-forge"],
                "dependencies": [
                    f"python={platform.python_version()}",
                    "pip",
                    {"pip": [f"-r {REQUIREMENTS}"]},
                ],
            }
        ),
    }
    return {name: text.encode() for name, text in texts.items()}


def locked(direct: tuple[str, ...]) -> list[str]:
    """List exact versions of these packages and of all that they need, as installed here, by name."""
    versions: dict[str, str] = {}
    waiting = list(direct)
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name in versions:
            continue
        try:
            package = distribution(name)
        except PackageNotFoundError:
            continue  # optional on this platform, or set-up leaves it out; pip would add it
        versions[name] = package.version
        for line in package.requires or ():
            needed = Requirement(line)
            if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                waiting.append(needed.name)
    return [f"{name}=={version}" for name, version in sorted(versions.items())]


def _description(run_id: str) -> str:
    """Write the file `MLmodel`, without its time and random id, which would make each bundle another one.

    Source: mlflow.org/docs/latest/ml/model/#mlmodel-file; the flavour is what `mlflow.pyfunc.add_to_model` writes.
    """
    from mlflow import __version__

    flavour = {
        "loader_module": "mlflow.pyfunc.loaders.code_model",
        "model_code_path": CODE,
        "python_version": platform.python_version(),
        "streamable": False,
        "env": {"conda": CONDA, "virtualenv": PYTHON_ENV},
        "artifacts": {
            name: {"path": path, "uri": path}
            for name, path in (("card", CARD_FILE), ("weights", WEIGHTS_FILE), ("runner", RUNNER))
        },
    }
    return _yaml({"flavors": {"python_function": flavour}, "mlflow_version": __version__, "run_id": run_id})


def _yaml(value: object) -> str:
    return yaml.safe_dump(value, sort_keys=True)
