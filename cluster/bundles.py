"""Release bundles: content-addressed sets of files that together are one model version.

A bundle lives under `bundles/<hash>/` in the bucket `mlflow-artifacts`, where MLflow serves it too. Its commit
object `bundle.json` is written last and names each file with its SHA-256; whoever reads verifies. Training
publishes, serving fetches. Knows nothing of what the files mean.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cluster.objects import ObjectStore

BUCKET = "mlflow-artifacts"
COMMIT = "bundle.json"


class BundleError(ValueError):
    """A bundle is absent, half-written, or a file in it is not what its commit object says."""


@dataclass(frozen=True, kw_only=True)
class BundleFile:
    sha256: str
    bytes: int


def publish(store: ObjectStore, files: Mapping[str, bytes | Path]) -> str:
    """Upload a bundle and return its key, `bundles/<hash>`; publishing the same files again changes nothing.

    Args:
        files: name (no slash) -> content, or the path of a file that holds it.
    """
    blobs = {name: one if isinstance(one, bytes) else one.read_bytes() for name, one in sorted(files.items())}
    index = {
        name: {"sha256": hashlib.sha256(blob).hexdigest(), "bytes": len(blob)} for name, blob in blobs.items()
    }
    commit = json.dumps({"files": index}, sort_keys=True, indent=1).encode()
    key = f"bundles/{hashlib.sha256(commit).hexdigest()}"
    if not store.exists(BUCKET, f"{key}/{COMMIT}"):
        for name, blob in blobs.items():
            store.put(BUCKET, f"{key}/{name}", blob)
        store.put(BUCKET, f"{key}/{COMMIT}", commit)
    return key


def index(store: ObjectStore, bundle_key: str) -> dict[str, BundleFile]:
    """What a published bundle holds.

    Raises:
        BundleError: no such bundle, or its commit object does not hash to its name.
    """
    try:
        commit = store.get(BUCKET, f"{bundle_key}/{COMMIT}")
    except FileNotFoundError as error:
        raise BundleError(f"there is no complete release bundle at {bundle_key}") from error
    if hashlib.sha256(commit).hexdigest() != bundle_key.removeprefix("bundles/"):
        raise BundleError(f"{bundle_key}/{COMMIT} was changed after it was published")
    return {name: BundleFile(**one) for name, one in json.loads(commit)["files"].items()}


def fetch(
    store: ObjectStore, bundle_key: str, directory: Path, names: Iterable[str] | None = None
) -> dict[str, Path]:
    """Download files of a bundle (all, or `names`) into `directory` and verify each.

    Raises:
        BundleError: the bundle or a file is absent, or a file's SHA-256 differs from the commit object's.
    """
    listed = index(store, bundle_key)
    wanted = list(listed) if names is None else list(names)
    directory.mkdir(parents=True, exist_ok=True)
    paths = {}
    for name in wanted:
        if name not in listed:
            raise BundleError(f"{bundle_key} has no file {name}; it has {', '.join(listed)}")
        try:
            blob = store.get(BUCKET, f"{bundle_key}/{name}")
        except FileNotFoundError as error:
            raise BundleError(f"{bundle_key}/{name} is listed but gone from the object store") from error
        if hashlib.sha256(blob).hexdigest() != listed[name].sha256:
            raise BundleError(f"{bundle_key}/{name} was changed: its SHA-256 is not the published one")
        paths[name] = directory / name
        paths[name].write_bytes(blob)
    return paths


def code_uri(store: ObjectStore, bundle_key: str) -> str:
    """Remote address of the code package that serves this bundle, as Ray's `working_dir` takes it."""
    return store.uri(BUCKET, f"{bundle_key}/code.zip")
