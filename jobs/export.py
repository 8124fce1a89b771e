"""Export a model version: ONNX, INT8, the edge runner; or sign what is registered with your key.

`--sign` is for versions from before signing, and from other sites: it verifies each file, then signs.
"""

import sys
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from cluster import progress
from cluster.objects import ObjectStore
from cluster.releases import bundles
from cluster.releases.registry import LLM, VIT, Registry
from cluster.settings import Settings
from jobs.runtime import entry
from jobs.runtime.inputs import model_version
from train.export import variants
from train.export.export import CLOUD, EDGE, ExportConfig, Exported, export


@dataclass(frozen=True, kw_only=True)
class Arguments:
    model_version: str | None = None
    """Version of `xray-vit`; default: the newest."""
    output: Path | None = None
    """A folder that gets both variants too, as `edge/` and `cloud/`, each with its signature."""
    sign: bool = False
    """Only sign the bundles of every registered version, or of `--model_version`, with the key of the settings."""
    export: ExportConfig = field(default_factory=ExportConfig)


def sign(settings: Settings, only: str | None) -> dict[str, Any]:
    """Sign registered bundles that our key has not signed; each file of theirs is verified first."""
    store, registry = ObjectStore(settings), Registry(settings)
    versions = {VIT: [only]} if only else {model: registry.versions(model) for model in (VIT, LLM)}
    signed: dict[str, list[str]] = {"signed": [], "already": []}
    for model, numbers in versions.items():
        for number in numbers:
            for key in registry.bundle_keys(model, number):
                signed["signed" if bundles.sign(store, key) else "already"].append(f"{model}/{number}")
    return signed


def run_export(settings: Settings, version: str, config: ExportConfig, output: Path | None) -> dict[str, Any]:
    """Export and print the table of variants; returns the fields of the job's line."""
    done = export(settings, version, config, partial(progress.report, "export"))
    sys.stdout.write(variants.table(done.variants))
    if output is not None:
        _copy(settings, done, output)
    return asdict(done) | {"output": str(output) if output else None}


def _copy(settings: Settings, done: Exported, output: Path) -> None:
    store = ObjectStore(settings)
    for name, key in ((EDGE, done.bundle_edge), (CLOUD, done.bundle_cloud)):
        bundles.download(store, key, output / name)


def work(arguments: Arguments) -> dict[str, Any]:
    settings = Settings.from_env()
    if arguments.sign:
        return sign(settings, arguments.model_version)
    version = model_version(settings, arguments.model_version)
    return run_export(settings, version, arguments.export, arguments.output)


if __name__ == "__main__":
    entry.main("export", Arguments, work)
