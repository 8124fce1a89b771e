"""A bundle's folder loaded by MLflow in a process that cannot import the project."""

from pathlib import Path

import yaml

from train.release import mlflow_files


def test_the_same_version_gives_the_same_bytes() -> None:
    one, other = (mlflow_files.files("run") for _ in range(2))
    assert one == other
    assert mlflow_files.files("another") != one


def test_the_lock_has_all_that_is_needed_with_exact_versions() -> None:
    lines = mlflow_files.locked(("timm",))
    names = {line.split("==")[0] for line in lines}
    assert {"timm", "torch", "torchvision", "safetensors", "numpy", "pillow", "huggingface-hub"} <= names
    assert all("==" in line for line in lines)
    assert "pytest" not in names


def test_the_description_names_files_that_are_there(mlflow_folder: Path) -> None:
    flavour = yaml.safe_load((mlflow_folder / "MLmodel").read_text())["flavors"]["python_function"]
    named = [one["path"] for one in flavour["artifacts"].values()]
    named += [flavour["model_code_path"], *flavour["env"].values()]
    assert all((mlflow_folder / name).is_file() for name in named)
    assert not any("pickle" in key or key == "python_model" for key in flavour)
