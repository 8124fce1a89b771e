"""The record of a named run in the object store, so that a rerun continues it or finds it finished.

`runs/NAME/run.json` names the current generation (`--fresh` begins the next one; nothing is deleted). Below
`runs/NAME/gNNN/` lie `checkpoints/`, `first-weights.*` of a run that does not begin from scratch, `trained.json` when
training is over, and `finished.json` when the model version is registered.
"""

import re
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from cluster.objects import ObjectStore

BUCKET = "checkpoints"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class RunError(ValueError):
    """The name is impossible or belongs to a run of other settings; the message says what to do."""


class RunConfig(Protocol):
    """The configuration of a run, of whatever model."""

    @property
    def fingerprint(self) -> str:
        """Hash of everything that changes what is learned."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One generation of one named run."""

    name: str
    generation: int
    fingerprint: str
    """Of the configuration, without the amount of machine."""
    dataset_version: str

    @property
    def folder(self) -> str:
        """Key prefix in the bucket `checkpoints`."""
        return f"runs/{self.name}/g{self.generation:03d}"

    @property
    def checkpoints(self) -> str:
        """Key prefix of its checkpoints, in the same bucket."""
        return f"{self.folder}/checkpoints"

    @property
    def key(self) -> str:
        """Identity in MLflow and in each checkpoint; two runs of equal key are the same work."""
        return f"{self.name}/g{self.generation:03d}/{self.dataset_version}/{self.fingerprint}"


@dataclass(frozen=True, kw_only=True)
class Trained:
    """The result of a finished training, for the release."""

    weights_key: str
    """Of the published safetensors file, in the bucket `checkpoints`: the average if there is one."""
    weights_sha256: str
    """Of the raw weights, never of their average."""
    steps: int
    history: list[dict[str, float]]


def default_name(config: RunConfig, dataset_version: str, *, kind: str = "vit") -> str:
    """Name a run after its settings and data: the same settings on the same data are the same run."""
    return f"{kind}-{dataset_version[:8]}-{config.fingerprint[:8]}"


def begin(
    store: ObjectStore, name: str, config: RunConfig, dataset_version: str, *, fresh: bool
) -> tuple[Run, bool]:
    """Return the run to work on, and whether it was begun before.

    Raises:
        RunError: the name cannot be used, or stands for a run of other settings or data.
    """
    if not NAME.fullmatch(name):
        raise RunError(f"a run's name has letters, digits, dots, dashes and underscores, got {name!r}")
    wanted = {"fingerprint": config.fingerprint, "dataset_version": dataset_version}
    try:
        before = Run(**store.get_json(BUCKET, pointer(name)))
    except FileNotFoundError:
        before = None
    if before is not None and not fresh:
        if before != Run(name=name, generation=before.generation, **wanted):
            raise RunError(
                f"run {name} has dataset {before.dataset_version} and settings {before.fingerprint}, asked for "
                f"are {dataset_version} and {config.fingerprint}: take another --run name, or --fresh"
            )
        return before, True
    run = Run(name=name, generation=1 if before is None else before.generation + 1, **wanted)
    store.put_json(BUCKET, pointer(name), asdict(run))
    return run, False


def trained(store: ObjectStore, run: Run) -> Trained | None:
    """Return the result of training, None until it is over."""
    values = _read(store, f"{run.folder}/trained.json")
    return None if values is None else Trained(**values)


def note_trained(store: ObjectStore, run: Run, result: Trained) -> None:
    store.put_json(BUCKET, f"{run.folder}/trained.json", asdict(result))


def drop_weights(store: ObjectStore, name: str) -> None:
    """Remove the checkpoints of a run's current generation, and the note that they are there.

    Begun again, the run trains anew; a registered model version has its own copy.
    """
    run = Run(**store.get_json(BUCKET, pointer(name)))
    store.delete(BUCKET, [f"{run.folder}/trained.json"])
    store.delete(BUCKET, store.keys(BUCKET, f"{run.checkpoints}/"))


def finished(store: ObjectStore, run: Run) -> dict[str, Any] | None:
    """Return the outcome of a run whose model version is registered."""
    return _read(store, f"{run.folder}/finished.json")


def note_finished(store: ObjectStore, run: Run, outcome: dict[str, Any]) -> None:
    store.put_json(BUCKET, f"{run.folder}/finished.json", outcome)


def pointer(name: str) -> str:
    """Return the key of the object that exists from the beginning of a run."""
    return f"runs/{name}/run.json"


def _read(store: ObjectStore, key: str) -> dict[str, Any] | None:
    try:
        values: dict[str, Any] = store.get_json(BUCKET, key)
    except FileNotFoundError:
        return None
    return values
