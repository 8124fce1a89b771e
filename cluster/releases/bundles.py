"""Release bundles: content-addressed, signed sets of files that make up one model version, or a variant of it.

A bundle lives under `bundles/<hash>/` in the bucket `mlflow-artifacts`, where MLflow serves it too. Its commit
object `bundle.json` is written last and names each file with its SHA-256; beside it lies the commit object's
signature. Every reader verifies signature, hash, and that each file is of a kind that `cluster.releases.artefacts`
allows. Training and export publish, serving fetches. Knows nothing of what the files mean.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cluster.objects import ObjectStore
from cluster.releases import artefacts, signatures

BUCKET = "mlflow-artifacts"
COMMIT = signatures.SIGNED_NAME
SIGNATURE = f"{COMMIT}.sig"
SIGN_HINT = (
    "`python -m jobs.export --sign` signs registered versions with your key, if you trust what they hold"
)


class BundleError(ValueError):
    """A bundle is absent, half-written, unsigned, or a file in it is not what its commit object says."""


@dataclass(frozen=True, kw_only=True)
class BundleFile:
    sha256: str
    bytes: int


def publish(store: ObjectStore, files: Mapping[str, bytes | Path]) -> str:
    """Upload a bundle, sign it, and return its key, `bundles/<hash>`; the same files again are the same bundle.

    Args:
        files: name (no slash) -> content, or the path of a file that holds it.
    Raises:
        BundleError: there is no key to sign with, or a file is of no kind that a bundle may hold.
    """
    blobs = {
        name: content if isinstance(content, bytes) else content.read_bytes()
        for name, content in sorted(files.items())
    }
    for name, blob in blobs.items():
        _check(name, blob)
    commit = commit_of(blobs)
    key = f"bundles/{hashlib.sha256(commit).hexdigest()}"
    signature = _sign(store, commit)
    if not store.exists(BUCKET, f"{key}/{COMMIT}"):
        for name, blob in blobs.items():
            store.put(BUCKET, f"{key}/{name}", blob)
        store.put(BUCKET, f"{key}/{SIGNATURE}", signature)
        store.put(BUCKET, f"{key}/{COMMIT}", commit)
    elif not _is_signed(store, key, commit):
        store.put(BUCKET, f"{key}/{SIGNATURE}", signature)
    return key


def commit_of(blobs: Mapping[str, bytes]) -> bytes:
    """Return the commit object of these files; its SHA-256 is the bundle's name."""
    index = {
        name: {"sha256": hashlib.sha256(blob).hexdigest(), "bytes": len(blob)}
        for name, blob in sorted(blobs.items())
    }
    return json.dumps({"files": index}, sort_keys=True, indent=1).encode()


def index(store: ObjectStore, bundle_key: str) -> dict[str, BundleFile]:
    """Return the files of a published bundle, once its signature has been verified.

    Raises:
        BundleError: no such bundle, its commit object does not hash to its name, or no trusted key signed it.
    """
    commit = _commit(store, bundle_key)
    _verify(store, bundle_key, commit)
    return _files(commit)


def fetch(
    store: ObjectStore, bundle_key: str, directory: Path, names: Iterable[str] | None = None
) -> dict[str, Path]:
    """Download files of a bundle (all, or `names`) into `directory` and verify each.

    Raises:
        BundleError: the bundle is not signed by the key that we trust, a file is absent or changed, or of no kind
            that a bundle may hold.
    """
    directory.mkdir(parents=True, exist_ok=True)
    paths = {}
    for name, blob in _read(store, bundle_key, index(store, bundle_key), names):
        paths[name] = directory / name
        paths[name].write_bytes(blob)
    return paths


def download(store: ObjectStore, bundle_key: str, directory: Path) -> None:
    """`fetch` all files, and beside them commit object and signature, so that the copy can be verified.

    Raises:
        BundleError: as `fetch`.
    """
    fetch(store, bundle_key, directory)
    for name in (COMMIT, SIGNATURE):
        (directory / name).write_bytes(store.get(BUCKET, f"{bundle_key}/{name}"))


def verify(store: ObjectStore, bundle_key: str, names: Iterable[str] | None = None) -> None:
    """Read files of a bundle (all, or `names`) as `fetch` does, and keep none: deploying calls it first.

    Raises:
        BundleError: as `fetch`.
    """
    for _ in _read(store, bundle_key, index(store, bundle_key), names):
        pass


def sign(store: ObjectStore, bundle_key: str) -> bool:
    """Sign a published bundle again when its signature is not of our key; its files are read and checked first.

    Returns:
        True if it was signed now.
    Raises:
        BundleError: a file was changed, or there is no key to sign with.
    """
    commit = _commit(store, bundle_key)
    if _is_signed(store, bundle_key, commit):
        return False
    for _ in _read(store, bundle_key, _files(commit), None):
        pass
    store.put(BUCKET, f"{bundle_key}/{SIGNATURE}", _sign(store, commit))
    return True


def code_uri(store: ObjectStore, bundle_key: str) -> str:
    """Return the address of the code package that serves this bundle, as Ray's `working_dir` takes it."""
    return store.uri(BUCKET, f"{bundle_key}/{artefacts.CODE}")


def _commit(store: ObjectStore, bundle_key: str) -> bytes:
    try:
        commit = store.get(BUCKET, f"{bundle_key}/{COMMIT}")
    except FileNotFoundError as error:
        raise BundleError(f"there is no complete release bundle at {bundle_key}") from error
    if hashlib.sha256(commit).hexdigest() != bundle_key.removeprefix("bundles/"):
        raise BundleError(f"{bundle_key}/{COMMIT} was changed after it was published")
    return commit


def _files(commit: bytes) -> dict[str, BundleFile]:
    return {name: BundleFile(**entry) for name, entry in json.loads(commit)["files"].items()}


def _read(
    store: ObjectStore, bundle_key: str, listed: Mapping[str, BundleFile], names: Iterable[str] | None
) -> Iterable[tuple[str, bytes]]:
    """Yield each wanted file's name and content, verified."""
    for name in listed if names is None else names:
        if name not in listed:
            raise BundleError(f"{bundle_key} has no file {name}; it has {', '.join(listed)}")
        try:
            blob = store.get(BUCKET, f"{bundle_key}/{name}")
        except FileNotFoundError as error:
            raise BundleError(f"{bundle_key}/{name} is listed but gone from the object store") from error
        if hashlib.sha256(blob).hexdigest() != listed[name].sha256:
            raise BundleError(f"{bundle_key}/{name} was changed: its SHA-256 is not the published one")
        _check(name, blob)
        yield name, blob


def _check(name: str, blob: bytes) -> None:
    try:
        artefacts.check(name, blob)
    except artefacts.ArtefactError as error:
        raise BundleError(str(error)) from error


def _sign(store: ObjectStore, commit: bytes) -> bytes:
    path = store.settings.signing_key_path
    if path is None:
        raise BundleError(
            "a release bundle is signed, and RAYDIOLOGY_SIGNING_KEY_PATH is not set: `make down`, `make up` and read "
            ".raydiology/env again, or set it to the file of your private key"
        )
    try:
        return signatures.sign(commit, path)
    except signatures.SignatureError as error:
        raise BundleError(f"the release bundle cannot be signed: {error}") from error


def _is_signed(store: ObjectStore, bundle_key: str, commit: bytes) -> bool:
    try:
        _verify(store, bundle_key, commit)
    except BundleError:
        return False
    return True


def _verify(store: ObjectStore, bundle_key: str, commit: bytes) -> None:
    path = store.settings.verifying_key_path
    if path is None:
        raise BundleError(
            f"{bundle_key} cannot be verified: RAYDIOLOGY_VERIFYING_KEY_PATH is not set; `make down`, `make up` and "
            "read .raydiology/env again, or set it to the file of the public key"
        )
    try:
        signatures.verify(commit, store.get(BUCKET, f"{bundle_key}/{SIGNATURE}"), path)
    except FileNotFoundError as error:
        raise BundleError(f"{bundle_key} is refused: it has no signature. {SIGN_HINT}") from error
    except signatures.SignatureError as error:
        raise BundleError(f"{bundle_key} is refused: {error}. {SIGN_HINT}") from error
