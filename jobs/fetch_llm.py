"""Make the language model: convert SmolLM2-135M-Instruct to a LitGPT checkpoint and register it as `xray-llm`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.settings import Settings
from jobs.runtime import entry
from train.llm.base_weights import convert
from train.llm.registry import checkpoint_directory, register


@dataclass(frozen=True, kw_only=True)
class Arguments:
    directory: Path | None = None
    """Where the converted checkpoint lies, or is to be put; default: the platform's home."""
    convert_only: bool = False
    """Convert, and register nothing; needs no platform."""


def work(arguments: Arguments) -> dict[str, Any]:
    directory = convert(arguments.directory or checkpoint_directory())
    if arguments.convert_only:
        return {"directory": str(directory)}
    version, bundle_key = register(Settings.from_env(), directory)
    return {"directory": str(directory), "model_version": version, "bundle": bundle_key}


if __name__ == "__main__":
    entry.main("fetch_llm", Arguments, work)
