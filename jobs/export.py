"""Export a model version; `--sign` signs what is registered with your key."""

from dataclasses import dataclass
from typing import Any

from cluster import bundles
from cluster.objects import ObjectStore
from cluster.registry import LLM, VIT, Registry
from cluster.settings import Settings
from jobs import entry


@dataclass(frozen=True, kw_only=True)
class Arguments:
    model_version: str | None = None
    """Version of `xray-vit`; default: the newest."""
    sign: bool = False
    """Only sign the bundles of every registered version, or of `--model_version`, with the key of the settings."""


def sign(settings: Settings, only: str | None) -> dict[str, Any]:
    """Sign registered bundles that our key has not signed; each file of theirs is verified first."""
    store, registry = ObjectStore(settings), Registry(settings)
    versions = {VIT: [only]} if only else {model: registry.versions(model) for model in (VIT, LLM)}
    told: dict[str, list[str]] = {"signed": [], "already": []}
    for model, numbers in versions.items():
        for number in numbers:
            for key in registry.bundle_keys(model, number):
                told["signed" if bundles.sign(store, key) else "already"].append(f"{model}/{number}")
    return told


def work(arguments: Arguments) -> dict[str, Any]:
    return sign(Settings.from_env(), arguments.model_version)


if __name__ == "__main__":
    entry.run("export", lambda: work(entry.parse(Arguments, "export")))
