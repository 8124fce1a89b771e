"""The versions of the language model in the registry: the base model, and those fine-tuned from it.

`jobs.fetch_llm` registers the base model, `jobs.finetune_llm` what it has learned.
"""

import os
from pathlib import Path

from cluster.embedded.home import Home
from cluster.expected import ExpectedError
from cluster.objects import ObjectStore
from cluster.releases import bundles, code_package
from cluster.releases.registry import LLM, Registry
from cluster.settings import Settings
from train.llm.config import LlmConfig
from train.llm.trainer import Learned

NAME = "SmolLM2-135M-Instruct"
BASE_TAG = "base_version"
"""Of a fine-tuned version: the version that it was made from."""
PASSING_TAG = "passing"
"""Of a fine-tuned version: which share of its texts about unseen findings passed the checker."""


class LlmRegistryError(ExpectedError):
    """No version of the language model can be used; one line."""


def checkpoint_directory() -> Path:
    """Return where the converted base model lies in the platform's home."""
    return Home.from_env(os.environ).path / "models" / NAME


def register(settings: Settings, directory: Path) -> tuple[str, str]:
    """Publish the base model with the code that serves it; it becomes the champion where there is none.

    Returns:
        version and bundle key.
    """
    bundle_key = _publish(settings, directory)
    registry = Registry(settings)
    version = registry.register(LLM, bundle_key, None, {"base": NAME, "license": "Apache-2.0"})
    if registry.version_by_alias(LLM, "champion") is None:
        registry.set_alias(LLM, "champion", version)
    return version, bundle_key


def base_version(registry: Registry, wanted: str | None) -> str:
    """Return the version to fine-tune: the wanted one, or the newest that was not fine-tuned itself.

    Raises:
        LlmRegistryError: there is none.
    """
    if wanted is not None:
        return wanted
    plain = [version for version in registry.versions(LLM) if BASE_TAG not in registry.tags(LLM, version)]
    if not plain:
        raise LlmRegistryError(f"{LLM} has no version to start from: run `python -m jobs.fetch_llm` first")
    return plain[-1]


def release(
    settings: Settings, learned: Learned, directory: Path, base: str, config: LlmConfig, *, git_commit: str
) -> tuple[str, str]:
    """Publish a merged checkpoint with the code that serves it, and register it without alias.

    Returns:
        version and bundle key.
    """
    bundle_key = _publish(settings, directory)
    tags = {
        BASE_TAG: base,
        "method": config.method,
        "git_commit": git_commit,
        "weights_sha256": learned.trained.weights_sha256,
    }
    return Registry(settings).register(LLM, bundle_key, learned.run_id, tags), bundle_key


def _publish(settings: Settings, directory: Path) -> str:
    """Publish a checkpoint's files with the code that serves them; return the bundle's key."""
    files = {path.name: path for path in sorted(directory.iterdir()) if path.is_file()}
    return bundles.publish(ObjectStore(settings), {**files, "code.zip": code_package.build()})
