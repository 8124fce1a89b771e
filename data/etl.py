"""From the catalog to a versioned dataset, with Ray Data: `jobs.etl` and `jobs.pipeline` call `run`.

Three steps. Workers stage each block of catalog rows as pixels or reasons (`data.staging`); the driver
decides on the logical rows and so on the version's name (`data.logical`); workers write the version's files,
and its manifest comes last. Until then nothing is visible, and a run that was cut short continues with what it has
staged and written. Within a run a lost worker's block is done again, and an S3 server or PostgreSQL that is away is
waited for (`cluster.patience`).
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import ray.exceptions

from cluster.expected import ExpectedError
from cluster.objects import ObjectStore
from cluster.patience import PATIENCE_S
from cluster.secrets import keyed_hash, read_key
from cluster.settings import Settings
from data import catalog, decisions, forgotten, lineage, logical, owners, review, spread, versions
from data.catalog import Quarantined, Sample
from data.groups import WOULD_JOIN_TWO_SIDES, Withheld
from data.logical import Assembly, Candidate
from data.near_duplicates import NEAR_VERSION
from data.originals import QUARANTINE, Originals
from data.owners import Others
from data.preprocess import PREPROCESS_VERSION, PixelConfig
from data.quality import QUALITY_VERSION
from data.review import Reviewed
from data.split import SHARES, SPLITS
from data.staging import (
    OUTCOME,
    STAGING,
    Part,
    Stage,
    abandoned,
    plan_parts,
    stage_block,
    write_part,
)
from data.taxonomy import taxonomy
from data.versions import BUCKET

Progress = Callable[[int, int, str], None]

SMALLEST_BLOCK_ROWS = 64
LARGEST_BLOCK_ROWS = 1024
BLOCKS = 48
"""Aimed at, between the two bounds: enough to share out and to show progress by."""
SYNTHETIC = "synthetic"
ASKED = pa.schema(
    [(name, pa.string()) for name in ("source", "sha256", "label", "view", "raw_key")]
    + [("waived", pa.list_(pa.string())), ("block", pa.int32())]
)
"""What a worker is told of an image."""


class EtlError(ExpectedError):
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
    blocks: int = field(default=0, compare=False)
    """Blocks that the images were cut into; 0 where none had to be looked at."""
    blocks_found: int = field(default=0, compare=False)
    """Of these, how many an earlier run that was cut short had staged."""


@dataclass(frozen=True, kw_only=True)
class _Staged:
    """What the workers made of all images."""

    blocks: list[pa.Table]
    """Of the schema `OUTCOME`, the rows of a block in the order of the catalog's."""
    found: int
    """Blocks that were staged already."""

    def rows(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Block and outcome of each image, in the catalog's order, some at a time."""
        for number, table in enumerate(self.blocks):
            for row in table.to_pylist():
                yield number, row

    def without_fingerprints(self) -> "_Staged":
        """A kilobyte less an image, once the candidates have theirs."""
        return replace(self, blocks=[table.drop_columns(["fingerprint"]) for table in self.blocks])


def run(
    settings: Settings,
    config: EtlConfig,
    *,
    fresh: bool = False,
    progress: Progress | None = None,
    git_commit: str = "unknown",
    now: datetime | None = None,
) -> EtlReport:
    """Make the dataset version of what the catalog holds now; Ray is initialised by the caller.

    Args:
        fresh: compute again even where the version exists.
        git_commit: of this code, for the manifest; it has no part in the version.
        now: by which what other runs have staged counts as abandoned; None: when this run sweeps.
    Raises:
        EtlError, CatalogError, ObjectStoreError, SecretError: what happened and what to do, in one line.
    """
    tell = progress or (lambda done, total, note: None)
    key = read_key(settings.pseudonym_key_path)
    with catalog.opened(settings) as connection:
        present = forgotten.remembered(connection, _selected(connection, config.sources), key)
        reviewed = review.applied(connection, present)
        others = owners.read(connection, config.sources)
    samples = reviewed.samples
    recipe = _recipe(config)
    inputs = _inputs(samples, recipe, key, reviewed, others)
    size = min(max(len(samples) // BLOCKS, SMALLEST_BLOCK_ROWS), LARGEST_BLOCK_ROWS)
    prefix = f"{STAGING}/{inputs}-{size}"
    stage = Stage(settings=settings, prefix=prefix, pixels=config.pixels, fresh=fresh)
    with catalog.locked(settings, f"etl {inputs}"):
        known = None if fresh else _indexed(ObjectStore(settings), inputs)
        store = ObjectStore(settings, patience_s=PATIENCE_S)
        if known is not None:
            tell(len(samples), len(samples), f"dataset version {known['version']} exists")
            _sweep(store, stage, now)
            return _note(settings, known, reused=True)
        staged = _stage(reviewed, size, stage, tell)
        candidates = list(_candidates(samples, staged, others))
        staged = staged.without_fingerprints()
        assembly = catalog.while_away(
            lambda: decisions.decide(
                settings, candidates, taxonomy().names, key=key, seed=config.seed, inputs=inputs
            ),
            patience_s=PATIENCE_S,
        )
        candidates.clear()  # a kilobyte an image
        if not assembly.rows:
            raise EtlError(
                f"none of the {len(samples)} images in the catalog can be used: see the quarantine"
            )
        rejects = [row for _, row in staged.rows() if row["reason"] is not None]
        _quarantine(settings, rejects, assembly)
        described = _describe(samples, recipe, assembly, rejects, git_commit, reviewed)
        earlier = catalog.patient(settings, catalog.versions, patience_s=PATIENCE_S)
        described["parents"] = lineage.parents(described, earlier)
        before = versions.published(store, described["version"])
        if before is None or (fresh and not _intact(store, before)):
            blocks = {(row["source"], row["sha256"]): number for number, row in staged.rows()}
            parts = list(
                plan_parts(described["version"], assembly.rows, blocks, config.pixels, reviewed.waived)
            )
            described["parts"] = _write(parts, stage, tell)
            _still_remembered(settings, samples, key)
            versions.publish(store, described["version"], described)
        store.put_json(BUCKET, _index_key(inputs), {"version": described["version"]})
        _sweep(store, stage, now)
        noted = _note(settings, before or described, reused=before is not None and not fresh)
        return replace(noted, blocks=len(staged.blocks), blocks_found=staged.found)


def _selected(connection: catalog.Connection, sources: Sequence[str]) -> list[Sample]:
    known = catalog.sources(connection)
    if unknown := sorted(set(sources) - set(known)):
        there = ", ".join(known) or "none"
        raise EtlError(f"the catalog has no source {', '.join(map(repr, unknown))}; there are: {there}")
    if not known:
        raise EtlError("the catalog is empty: run `python -m jobs.ingest --source DIR` first")
    return catalog.samples(connection, sources, metadata=False)


def _still_remembered(settings: Settings, samples: Sequence[Sample], key: bytes) -> None:
    """Publish nothing of a patient who was forgotten meanwhile: PostgreSQL, restarted, frees every lock."""
    kept = catalog.patient(
        settings,
        lambda connection: forgotten.remembered(connection, samples, key),
        patience_s=PATIENCE_S,
    )
    if len(kept) < len(samples):
        raise EtlError("a patient was forgotten while this dataset was made: run the same command again")


def _recipe(config: EtlConfig) -> dict[str, Any]:
    """The settings that have a part in the version."""
    return {
        "pixels": asdict(config.pixels),
        "preprocess_version": PREPROCESS_VERSION,
        "quality_version": QUALITY_VERSION,
        "classes": list(taxonomy().names),
        "split": {
            "by": "keyed hash of the group",
            "shares": dict(SHARES),
            "seed": config.seed,
            "near_duplicates": NEAR_VERSION,
        },
    }


def _inputs(
    samples: Sequence[Sample], recipe: dict[str, Any], key: bytes, reviewed: Reviewed, others: Others
) -> str:
    """Fingerprint of all that the version follows from, known before any image is decoded."""
    digest = hashlib.sha256()
    for one in samples:
        digest.update(repr(one).encode() + b"\n")
    for released in sorted(reviewed.waived.items()):
        digest.update(repr(released).encode() + b"\n")
    for further in sorted(others.items()):
        digest.update(repr(further).encode() + b"\n")
    digest.update(str(reviewed.rejected).encode())
    return keyed_hash(key, "etl inputs", repr(sorted(recipe.items())), digest.hexdigest())[:32]


def _index_key(inputs: str) -> str:
    return f"_index/{inputs}.json"


def _indexed(store: ObjectStore, inputs: str) -> dict[str, Any] | None:
    """The manifest of the version that these inputs gave before."""
    if not store.exists(BUCKET, _index_key(inputs)):
        return None
    version: str = store.get_json(BUCKET, _index_key(inputs))["version"]
    return versions.published(store, version)


def _stage(reviewed: Reviewed, size: int, stage: Stage, tell: Progress) -> _Staged:
    def stage_one(batch: pa.Table) -> pa.Table:
        block = batch["block"][0].as_py()
        table, found = stage_block(block, batch.to_pylist(), stage)
        numbers = pa.array([block] * len(table), pa.int32())
        return table.append_column("block", numbers).append_column("found", pa.array([found] * len(table)))

    samples = reviewed.samples
    blocks: dict[int, pa.Table] = {}
    done = bad = found = 0
    tell(0, len(samples), "images read from the store")
    try:
        for table in spread.through_blocks(_cut(reviewed, size), stage_one):
            blocks[table["block"][0].as_py()] = table.select(OUTCOME.names)
            found += table["found"][0].as_py()
            done += len(table)
            bad += len(table) - table["reason"].null_count
            tell(done, len(samples), f"images became pixels, {bad} set aside")
    except ray.exceptions.RayError as error:
        raise _explain(error) from error
    return _Staged(blocks=[blocks[number] for number in sorted(blocks)], found=found)


def _cut(reviewed: Reviewed, size: int) -> Iterator[pa.Table]:
    """The rows of each block, with the reasons that were waived and the block's number."""
    for number, start in enumerate(range(0, len(reviewed.samples), size)):
        some = reviewed.samples[start : start + size]
        own = [name for name in ASKED.names if name not in ("waived", "block")]
        columns = {name: [getattr(one, name) for one in some] for name in own}
        columns["waived"] = [reviewed.waived.get((one.source, one.sha256), ()) for one in some]
        yield pa.Table.from_pydict({**columns, "block": [number] * len(some)}, schema=ASKED)


def _candidates(samples: Sequence[Sample], staged: _Staged, others: Others) -> Iterator[Candidate]:
    for sample, (_, outcome) in zip(samples, staged.rows(), strict=True):
        assert (sample.source, sample.sha256) == (outcome["source"], outcome["sha256"])
        if outcome["pixel_sha256"] is not None:
            yield Candidate(
                source=sample.source,
                sha256=sample.sha256,
                label=sample.label,
                patient=sample.patient_pseudonym,
                group_key=sample.group_key,
                sex=sample.sex,
                age=sample.age,
                view=sample.view,
                site=sample.site,
                pixel_sha256=outcome["pixel_sha256"],
                others=others.get((sample.source, sample.sha256), ()),
                fingerprint=outcome["fingerprint"],
            )


def _quarantine(settings: Settings, rejects: Sequence[dict[str, Any]], assembly: Assembly) -> None:
    """Note the rejects (the workers have set their files aside); set aside what contradicts or is withheld."""
    originals = Originals.of(settings, patience_s=PATIENCE_S)

    def set_aside(one: Candidate | Withheld) -> None:
        originals.put(QUARANTINE, one.sha256, originals.get(originals.key_of(one.sha256)))

    with ThreadPoolExecutor() as pool:
        list(pool.map(set_aside, [*assembly.conflicting, *assembly.withheld]))
    conflict = ("conflicting_label", "an image with the same pixels has another label")
    reasons: list[tuple[str, str, str, str, str | None]] = [
        (one["source"], one["sha256"], one["reason"], one["detail"] or "", None) for one in rejects
    ]
    reasons += [(one.source, one.sha256, *conflict, one.pixel_sha256) for one in assembly.conflicting]
    reasons += [(one.source, one.sha256, WOULD_JOIN_TWO_SIDES, one.detail, None) for one in assembly.withheld]
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
    catalog.patient(
        settings, lambda connection: catalog.write_quarantine(connection, rows), patience_s=PATIENCE_S
    )


def _describe(
    samples: Sequence[Sample],
    recipe: dict[str, Any],
    assembly: Assembly,
    rejects: Sequence[dict[str, Any]],
    git_commit: str,
    reviewed: Reviewed,
) -> dict[str, Any]:
    """The manifest of the version, but for its parts."""
    kept = {(row.source, row.sha256) for row in assembly.rows}
    licenses = Counter(one.license for one in samples if (one.source, one.sha256) in kept)
    sources = Counter(row.source for row in assembly.rows)
    quarantined = Counter(str(one["reason"]) for one in rejects)
    quarantined["rejected"] = reviewed.rejected
    quarantined["duplicate"] = assembly.duplicates
    quarantined["conflicting_label"] = len(assembly.conflicting)
    quarantined[WOULD_JOIN_TWO_SIDES] = len(assembly.withheld)
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
        "near_duplicates": assembly.near_duplicates,
        "withheld": [
            {"source": one.source, "sha256": one.sha256, "sides": list(one.sides)}
            for one in assembly.withheld
        ],
        "sources": dict(sorted(sources.items())),
        "licenses": dict(sorted(licenses.items())),
        "synthetic": all(source.startswith(SYNTHETIC) for source in sources),
    }


def _write(parts: Sequence[Part], stage: Stage, tell: Progress) -> list[dict[str, Any]]:
    """Write the parts in parallel; what each holds, in the order of `parts`."""
    written: dict[int, dict[str, Any]] = {}
    note = "files of the dataset written"
    tell(0, len(parts), note)
    try:
        for number, made in spread.through_tasks(write_part, parts, stage):
            written[number] = made
            tell(len(written), len(parts), note)
    except ray.exceptions.RayError as error:
        raise _explain(error) from error
    return [written[number] for number in range(len(parts))]


def _sweep(store: ObjectStore, stage: Stage, now: datetime | None) -> None:
    """Remove what was staged: it is in the version, or nobody will ask for it; and what others have abandoned."""
    store.delete(BUCKET, store.keys(BUCKET, stage.prefix + "/"))
    store.delete(BUCKET, abandoned(stage.objects(), now=now or datetime.now(UTC)))


def _intact(store: ObjectStore, described: dict[str, Any]) -> bool:
    try:
        for part in described["parts"]:
            versions.read_part(store, described["version"], part)
    except versions.VersionError:
        return False
    return True


def _note(settings: Settings, described: dict[str, Any], *, reused: bool) -> EtlReport:
    catalog.patient(
        settings,
        lambda connection: catalog.write_version(connection, described["version"], described),
        patience_s=PATIENCE_S,
    )
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
