"""From the catalog to a versioned dataset, with Ray Data: `jobs.etl` and `jobs.pipeline` call `run`.

Three steps. Workers stage each block of catalog rows as pixels or reasons (`data.staging`); the driver
decides on the logical rows and so on the version's name (`data.logical`); workers write the version's files,
and its manifest comes last. Until then nothing is visible, and a run that was cut short continues with the
blocks that it has staged.
"""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import ray
import ray.data
import ray.exceptions

from cluster.objects import ObjectStore
from cluster.secrets import keyed_hash, read_key
from cluster.settings import Settings
from data import catalog, forgotten, logical, review, versions
from data.catalog import Quarantined, Sample
from data.logical import Assembly, Candidate
from data.originals import QUARANTINE, Originals
from data.preprocess import PREPROCESS_VERSION, PixelConfig
from data.review import Reviewed
from data.split import SHARES, SPLITS
from data.staging import Part, Stage, plan_parts, stage_block, write_part
from data.taxonomy import taxonomy
from data.versions import BUCKET

Progress = Callable[[int, int, str], None]

SMALLEST_BLOCK_ROWS = 64
LARGEST_BLOCK_ROWS = 2048
BLOCKS = 48
"""Aimed at, between the two bounds: enough to share out and to show progress by."""
SYNTHETIC = "synthetic"


class EtlError(RuntimeError):
    """There is nothing to make a dataset of, or a worker could not go on; one line."""


@dataclass(frozen=True, kw_only=True)
class EtlConfig:
    pixels: PixelConfig = field(default_factory=PixelConfig)
    """How images become pixels."""
    sources: tuple[str, ...] = ()
    """Sources of the catalog to take; empty: all."""
    seed: int = 0
    """Another seed draws another split; keep it to compare models."""


@dataclass(frozen=True, kw_only=True)
class EtlReport:
    version: str
    counts: dict[str, dict[str, int]]
    """Split → class → number of images."""
    quarantined: dict[str, int]
    """Reason → number of images left out; `duplicate` counts equal samples, of which one stays, `rejected` what
    reviewers keep out."""
    reused: bool
    """Whether the version was there already and its files were kept."""


@dataclass(frozen=True, kw_only=True)
class _Outcome:
    """What a worker made of one image."""

    source: str
    sha256: str
    block: int
    sample_hash: str | None
    pixel_sha256: str | None
    reason: str | None
    detail: str | None


def run(
    settings: Settings,
    config: EtlConfig,
    *,
    fresh: bool = False,
    progress: Progress | None = None,
    git_commit: str = "unknown",
) -> EtlReport:
    """Make the dataset version of what the catalog holds now; Ray is initialised by the caller.

    Args:
        fresh: compute again even where the version exists.
        git_commit: of this code, for the manifest; it has no part in the version.
    Raises:
        EtlError, CatalogError, ObjectStoreError, SecretError: what happened and what to do, in one line.
    """
    tell = progress or (lambda done, total, note: None)
    store = ObjectStore(settings)
    key = read_key(settings.pseudonym_key_path)
    with catalog.opened(settings) as connection:
        present = forgotten.remembered(connection, _selected(connection, config.sources), key)
        reviewed = review.applied(connection, present)
    samples = reviewed.samples
    recipe = _recipe(config)
    inputs = _inputs(samples, recipe, key, reviewed)
    with catalog.locked(settings, f"etl {inputs}"):
        known = None if fresh else _indexed(store, inputs)
        if known is not None:
            tell(len(samples), len(samples), f"dataset version {known['version']} exists")
            return _note(settings, known, reused=True)
        stage = Stage(settings=settings, prefix=f"_staging/{inputs}", pixels=config.pixels, fresh=fresh)
        outcomes = _stage(samples, stage, tell, reviewed)
        candidates = _candidates(samples, outcomes)
        assembly = logical.assemble(candidates, taxonomy().names, key=key, seed=config.seed)
        if not assembly.rows:
            raise EtlError(
                f"none of the {len(samples)} images in the catalog can be used: see the quarantine"
            )
        rejects = [one for one in outcomes if one.reason is not None]
        _quarantine(settings, rejects, assembly)
        described = _describe(samples, recipe, assembly, rejects, git_commit, reviewed)
        before = versions.published(store, described["version"])
        if before is None or (fresh and not _intact(store, before)):
            blocks = {(one.source, one.sha256): one.block for one in outcomes}
            parts = plan_parts(described["version"], assembly.rows, blocks, config.pixels)
            described["parts"] = _write(parts, stage, tell)
            _still_remembered(settings, samples, key)
            versions.publish(store, described["version"], described)
        store.put_json(BUCKET, _index_key(inputs), {"version": described["version"]})
        store.delete(BUCKET, [stage.key(block) for block in sorted({one.block for one in outcomes})])
        return _note(settings, before or described, reused=before is not None and not fresh)


def _selected(connection: catalog.Connection, sources: Sequence[str]) -> list[Sample]:
    known = catalog.sources(connection)
    if unknown := sorted(set(sources) - set(known)):
        there = ", ".join(known) or "none"
        raise EtlError(f"the catalog has no source {', '.join(map(repr, unknown))}; there are: {there}")
    if not known:
        raise EtlError("the catalog is empty: run `python -m jobs.ingest --source DIR` first")
    return catalog.samples(connection, sources)


def _still_remembered(settings: Settings, samples: Sequence[Sample], key: bytes) -> None:
    """Publish nothing of a patient who was forgotten meanwhile: PostgreSQL, restarted, frees every lock."""
    with catalog.opened(settings) as connection:
        if len(forgotten.remembered(connection, samples, key)) < len(samples):
            raise EtlError("a patient was forgotten while this dataset was made: run the same command again")


def _recipe(config: EtlConfig) -> dict[str, Any]:
    """The settings that have a part in the version."""
    return {
        "pixels": asdict(config.pixels),
        "preprocess_version": PREPROCESS_VERSION,
        "classes": list(taxonomy().names),
        "split": {"by": "keyed hash of the group", "shares": dict(SHARES), "seed": config.seed},
    }


def _inputs(samples: Sequence[Sample], recipe: dict[str, Any], key: bytes, reviewed: Reviewed) -> str:
    """Fingerprint of all that the version follows from, known before any image is decoded."""
    rows = [repr(replace(one, metadata={})) for one in samples]
    rows += [repr(one) for one in sorted(reviewed.waived.items())] + [str(reviewed.rejected)]
    return keyed_hash(key, "etl inputs", repr(sorted(recipe.items())), *rows)[:32]


def _index_key(inputs: str) -> str:
    return f"_index/{inputs}.json"


def _indexed(store: ObjectStore, inputs: str) -> dict[str, Any] | None:
    """The manifest of the version that these inputs gave before."""
    if not store.exists(BUCKET, _index_key(inputs)):
        return None
    version: str = store.get_json(BUCKET, _index_key(inputs))["version"]
    return versions.published(store, version)


def _stage(samples: Sequence[Sample], stage: Stage, tell: Progress, reviewed: Reviewed) -> list[_Outcome]:
    """Run the blocks through Ray Data; a row of the dataset is one block."""
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    size = min(max(len(samples) // BLOCKS, SMALLEST_BLOCK_ROWS), LARGEST_BLOCK_ROWS)
    columns = ("source", "sha256", "label", "raw_key")
    blocks = [
        {
            "block": number,
            "rows": [
                {name: getattr(one, name) for name in columns}
                | {"waived": list(reviewed.waived.get((one.source, one.sha256), ()))}
                for one in some
            ],
        }
        for number, start in enumerate(range(0, len(samples), size))
        for some in [samples[start : start + size]]
    ]

    def stage_blocks(batch: pa.Table) -> pa.Table:
        tables = []
        for one in batch.to_pylist():
            table = stage_block(one["block"], one["rows"], stage)
            tables.append(table.append_column("block", pa.array([one["block"]] * table.num_rows, pa.int64())))
        return pa.concat_tables(tables)

    dataset = ray.data.from_items(blocks, override_num_blocks=len(blocks)).map_batches(
        stage_blocks, batch_size=None, batch_format="pyarrow", num_cpus=1
    )
    outcomes: list[_Outcome] = []
    tell(0, len(samples), "images read from the store")
    try:
        for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
            outcomes += [_Outcome(**row) for row in batch.to_pylist()]
            bad = sum(one.reason is not None for one in outcomes)
            tell(len(outcomes), len(samples), f"images became pixels, {bad} set aside")
    except ray.exceptions.RayError as error:
        raise _explain(error) from error
    return outcomes


def _candidates(samples: Sequence[Sample], outcomes: Sequence[_Outcome]) -> list[Candidate]:
    by_identity = {(one.source, one.sha256): one for one in samples}
    return [
        Candidate(
            source=sample.source,
            sha256=sample.sha256,
            label=sample.label,
            patient=sample.patient_pseudonym,
            group_key=sample.group_key,
            sex=sample.sex,
            age=sample.age,
            view=sample.view,
            site=sample.site,
            pixel_sha256=outcome.pixel_sha256,
        )
        for outcome in outcomes
        if outcome.pixel_sha256 is not None
        for sample in [by_identity[outcome.source, outcome.sha256]]
    ]


def _quarantine(settings: Settings, rejects: Sequence[_Outcome], assembly: Assembly) -> None:
    """Note the rejects (the workers have set their files aside) and set contradictory images aside."""
    originals = Originals.of(settings)

    def set_aside(one: Candidate) -> None:
        originals.put(QUARANTINE, one.sha256, originals.get(originals.key_of(one.sha256)))

    with ThreadPoolExecutor() as pool:
        list(pool.map(set_aside, assembly.conflicting))
    conflict = ("conflicting_label", "an image with the same pixels has another label")
    reasons: list[tuple[str, str, str, str, str | None]] = [
        (one.source, one.sha256, one.reason or "", one.detail or "", None) for one in rejects
    ]
    reasons += [(one.source, one.sha256, *conflict, one.pixel_sha256) for one in assembly.conflicting]
    stored = originals.present(QUARANTINE, {originals.key_of(sha256) for _, sha256, _, _, _ in reasons})
    rows = [
        Quarantined(
            source=source,
            sha256=sha256,
            stage="etl",
            reason=reason,
            detail=detail,
            object_key=object_key if (object_key := originals.key_of(sha256)) in stored else None,
            pixel_sha256=pixel_sha256,
        )
        for source, sha256, reason, detail, pixel_sha256 in reasons
    ]
    with catalog.opened(settings) as connection:
        catalog.write_quarantine(connection, rows)


def _describe(
    samples: Sequence[Sample],
    recipe: dict[str, Any],
    assembly: Assembly,
    rejects: Sequence[_Outcome],
    git_commit: str,
    reviewed: Reviewed,
) -> dict[str, Any]:
    """The manifest of the version, but for its parts."""
    kept = {(row.source, row.sha256) for row in assembly.rows}
    licenses = Counter(one.license for one in samples if (one.source, one.sha256) in kept)
    sources = Counter(row.source for row in assembly.rows)
    quarantined = Counter(one.reason or "" for one in rejects)
    quarantined["rejected"] = reviewed.rejected
    quarantined["duplicate"] = assembly.duplicates
    quarantined["conflicting_label"] = len(assembly.conflicting)
    return {
        "format": 1,
        "version": logical.version_of(assembly.rows, recipe),
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "git_commit": git_commit,
        "parents": [],
        "settings": recipe,
        "classes": recipe["classes"],
        "counts": logical.counts(assembly.rows, recipe["classes"]),
        "groups": {s: len({row.group_key for row in assembly.rows if row.split == s}) for s in SPLITS},
        "quarantined": {reason: number for reason, number in sorted(quarantined.items()) if number},
        "sources": dict(sorted(sources.items())),
        "licenses": dict(sorted(licenses.items())),
        "synthetic": all(source.startswith(SYNTHETIC) for source in sources),
    }


def _write(parts: Sequence[Part], stage: Stage, tell: Progress) -> list[dict[str, Any]]:
    """Write the parts in parallel; what each holds, in the order of `parts`."""
    task = ray.remote(num_cpus=1)(write_part)
    shared = ray.put(stage)
    references = [task.remote(part, shared) for part in parts]
    waiting = list(references)
    try:
        while waiting:
            tell(len(parts) - len(waiting), len(parts), "files of the dataset written")
            _, waiting = ray.wait(waiting)
        tell(len(parts), len(parts), "files of the dataset written")
        return list(ray.get(references))
    except ray.exceptions.RayError as error:
        raise _explain(error) from error


def _intact(store: ObjectStore, described: dict[str, Any]) -> bool:
    try:
        for part in described["parts"]:
            versions.read_part(store, described["version"], part)
    except versions.VersionError:
        return False
    return True


def _note(settings: Settings, described: dict[str, Any], *, reused: bool) -> EtlReport:
    with catalog.opened(settings) as connection:
        catalog.write_version(connection, described["version"], described)
    return EtlReport(
        version=described["version"],
        counts={
            split: {name: described["counts"][split][name] for name in described["classes"]}
            for split in SPLITS
        },
        quarantined=described["quarantined"],
        reused=reused,
    )


def _explain(error: ray.exceptions.RayError) -> EtlError:
    last = str(error).strip().splitlines()[-1]
    return EtlError(f"a worker stopped: {last}. The images done so far are kept: run the same command again")
