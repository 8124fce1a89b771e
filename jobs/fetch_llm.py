"""Make the language model: convert SmolLM2-135M-Instruct to a LitGPT checkpoint and register it as `xray-llm`."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster import bundles, code_package
from cluster.home import Home
from cluster.objects import ObjectStore
from cluster.registry import LLM, Registry
from cluster.settings import Settings
from jobs.runtime import entry
from train.llm_weights import convert

NAME = "SmolLM2-135M-Instruct"


@dataclass(frozen=True, kw_only=True)
class Arguments:
    directory: Path | None = None
    """Where the converted checkpoint lies, or is to be put; default: the platform's home."""
    convert_only: bool = False
    """Convert, and register nothing; needs no platform."""


def checkpoint_directory() -> Path:
    return Home.from_env(os.environ).path / "models" / NAME


def register(settings: Settings, directory: Path) -> tuple[str, str]:
    """Publish the checkpoint with the code that serves it; champion when there is none.

    Returns:
        version and bundle key.
    """
    files: dict[str, bytes | Path] = {
        path.name: path for path in sorted(directory.iterdir()) if path.is_file()
    }
    bundle_key = bundles.publish(ObjectStore(settings), {**files, "code.zip": code_package.build()})
    registry = Registry(settings)
    version = registry.register(LLM, bundle_key, None, {"base": NAME, "license": "Apache-2.0"})
    if registry.version_by_alias(LLM, "champion") is None:
        registry.set_alias(LLM, "champion", version)
    return version, bundle_key


def work(arguments: Arguments) -> dict[str, Any]:
    directory = convert(arguments.directory or checkpoint_directory())
    if arguments.convert_only:
        return {"directory": str(directory)}
    version, bundle_key = register(Settings.from_env(), directory)
    return {"directory": str(directory), "model_version": version, "bundle": bundle_key}


if __name__ == "__main__":
    entry.main("fetch_llm", Arguments, work)
