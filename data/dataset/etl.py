"""From the catalog to a versioned dataset, with Ray Data: `jobs.etl` and `jobs.pipeline` call `run`.

Three steps. Workers stage each block of catalog rows as pixels or reasons (`data.dataset.staging`); the driver
decides the logical rows and so the version's name (`data.dataset.rows`); workers write the version's files, and
the manifest comes last (`data.dataset.commit`). Until then nothing is visible, and a run that was cut short
continues with what it has staged and written. Within a run a lost worker's block is done again, and an S3 server
or PostgreSQL that is away is waited for (`cluster.patience`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import pyarrow as pa
import ray.exceptions

from cluster.objects import ObjectStore
from cluster.patience import PATIENCE_S
from cluster.progress import OnProgress, silent
from cluster.secrets import read_key
from cluster.settings import Settings
from data.catalog import erased_patients, quarantine_review, shared_files, tables
from data.catalog.quarantine_review import Reviewed
from data.catalog.shared_files import Others
from data.catalog.tables import Sample
from data.dataset import commit, description, lineage, ray_map, split_decisions, versions
from data.dataset.commit import EtlError, EtlReport
from data.dataset.parts import Part, plan_parts, write_part
from data.dataset.rows import Assembly, Candidate
from data.dataset.staging import OUTCOME, STAGING, Stage, stage_block
from data.imaging.preprocess import PixelConfig
from data.taxonomy import taxonomy

SMALLEST_BLOCK_ROWS = 64
LARGEST_BLOCK_ROWS = 1024
BLOCKS = 48
"""Number of blocks aimed at, between the two bounds: enough to share out and to show progress by."""
REQUEST = pa.schema(
    [(name, pa.string()) for name in ("source", "sha256", "label", "view", "raw_key")]
    + [("waived", pa.list_(pa.string())), ("block", pa.int32())]
)
"""What a worker gets of each image."""


@dataclass(frozen=True, kw_only=True)
class EtlConfig:
    pixels: PixelConfig = field(default_factory=PixelConfig)
    """How images become pixels."""
    sources: tuple[str, ...] = ()
    """Sources of the catalog to take; empty: all."""
    seed: int = 0
    """Another seed draws another split; keep it to compare models."""


@dataclass(frozen=True, kw_only=True)
class _Inputs:
    """All that a version follows from, as the catalog holds it when the run starts."""

    key: bytes
    """The pseudonym key."""
    reviewed: Reviewed
    others: Others
    seed: int
    recipe: dict[str, Any]
    """See `description.recipe`."""
    fingerprint: str
    """See `description.fingerprint`."""

    @property
    def samples(self) -> list[Sample]:
        return self.reviewed.samples

    @property
    def block_rows(self) -> int:
        return min(max(len(self.samples) // BLOCKS, SMALLEST_BLOCK_ROWS), LARGEST_BLOCK_ROWS)


@dataclass(frozen=True, kw_only=True)
class _Staged:
    """What the workers made of all images."""

    blocks: list[pa.Table]
    """In the schema `OUTCOME`, the rows of a block in the order of the catalog's."""
    reused: int
    """Number of blocks that an earlier run had staged."""

    def rows(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield block number and outcome of each image, in the catalog's order."""
        for number, table in enumerate(self.blocks):
            for row in table.to_pylist():
                yield number, row

    def without_fingerprints(self) -> "_Staged":
        """Drop a kilobyte an image, once the candidates hold it."""
        return replace(self, blocks=[table.drop_columns(["fingerprint"]) for table in self.blocks])


def run(
    settings: Settings,
    config: EtlConfig,
    *,
    fresh: bool = False,
    progress: OnProgress = silent,
    git_commit: str = "unknown",
    now: datetime | None = None,
) -> EtlReport:
    """Make the dataset version of what the catalog holds now; the caller has initialised Ray.

    Args:
        fresh: compute again even where the version exists.
        git_commit: of this code, for the manifest; it has no part in the version.
        now: time by which the staged work of other runs counts as abandoned; None: when this run sweeps.
    Raises:
        EtlError, CatalogError, ObjectStoreError, SecretError: what happened and what to do, in one line.
    """
    inputs = _read_inputs(settings, config)
    prefix = f"{STAGING}/{inputs.fingerprint}-{inputs.block_rows}"
    stage = Stage(settings=settings, prefix=prefix, pixels=config.pixels, fresh=fresh)
    with tables.locked(settings, f"etl {inputs.fingerprint}"):
        known = None if fresh else commit.indexed(ObjectStore(settings), inputs.fingerprint)
        if known is None:
            report = _build(inputs, stage, progress, git_commit)
        else:
            total = len(inputs.samples)
            progress(total, total, f"dataset version {known['version']} exists")
            report = commit.record(settings, known, reused=True)
        commit.sweep(ObjectStore(settings, patience_s=PATIENCE_S), stage, now)
    return report


def _read_inputs(settings: Settings, config: EtlConfig) -> _Inputs:
    key = read_key(settings.pseudonym_key_path)
    with tables.opened(settings) as connection:
        selected = _selected(connection, config.sources)
        reviewed = quarantine_review.applied(
            connection, erased_patients.without_erased(connection, selected, key)
        )
        others = shared_files.read(connection, config.sources)
    recipe = description.recipe(config.pixels, config.seed)
    fingerprint = description.fingerprint(recipe, key, reviewed, others)
    return _Inputs(
        key=key, reviewed=reviewed, others=others, seed=config.seed, recipe=recipe, fingerprint=fingerprint
    )


def _selected(connection: tables.Connection, sources: Sequence[str]) -> list[Sample]:
    known = tables.sources(connection)
    if unknown := sorted(set(sources) - set(known)):
        there = ", ".join(known) or "none"
        raise EtlError(f"the catalog has no source {', '.join(map(repr, unknown))}; there are: {there}")
    if not known:
        raise EtlError("the catalog is empty: run `python -m jobs.ingest --source DIR` first")
    return tables.samples(connection, sources, metadata=False)


def _build(inputs: _Inputs, stage: Stage, progress: OnProgress, git_commit: str) -> EtlReport:
    """Stage, decide, write and publish one version."""
    settings, samples, reviewed = stage.settings, inputs.samples, inputs.reviewed
    store = ObjectStore(settings, patience_s=PATIENCE_S)
    staged = _stage(inputs, stage, progress)
    candidates = list(_candidates(inputs, staged))
    staged = staged.without_fingerprints()
    assembly = _decide(settings, inputs, candidates)
    candidates.clear()  # a kilobyte an image
    if not assembly.rows:
        raise EtlError(f"none of the {len(samples)} images in the catalog can be used: see the quarantine")
    rejects = [row for _, row in staged.rows() if row["reason"] is not None]
    commit.quarantine(settings, rejects, assembly)
    described = description.describe(inputs.recipe, reviewed, assembly, rejects, git_commit)
    version = described["version"]
    earlier = tables.patient(settings, tables.versions, patience_s=PATIENCE_S)
    described["parents"] = lineage.parents(described, earlier)
    before = versions.published(store, version)
    if before is None or (stage.fresh and not commit.is_intact(store, before)):
        block_of = {(row["source"], row["sha256"]): number for number, row in staged.rows()}
        parts = list(plan_parts(version, assembly.rows, block_of, stage.pixels, reviewed.waived))
        described["parts"] = _write(parts, stage, progress)
        commit.publish(settings, store, described, samples, inputs.key)
    commit.index(store, inputs.fingerprint, version)
    report = commit.record(settings, before or described, reused=before is not None and not stage.fresh)
    return replace(report, blocks=len(staged.blocks), blocks_found=staged.reused)


def _stage(inputs: _Inputs, stage: Stage, progress: OnProgress) -> _Staged:
    def stage_one(batch: pa.Table) -> pa.Table:
        block = batch["block"][0].as_py()
        table, reused = stage_block(block, batch.to_pylist(), stage)
        numbers = pa.array([block] * len(table), pa.int32())
        return table.append_column("block", numbers).append_column("reused", pa.array([reused] * len(table)))

    total = len(inputs.samples)
    blocks: dict[int, pa.Table] = {}
    done = bad = reused = 0
    progress(0, total, "images read from the store")
    try:
        for table in ray_map.through_blocks(_cut(inputs.reviewed, inputs.block_rows), stage_one):
            blocks[table["block"][0].as_py()] = table.select(OUTCOME.names)
            reused += table["reused"][0].as_py()
            done += len(table)
            bad += len(table) - table["reason"].null_count
            progress(done, total, f"images became pixels, {bad} set aside")
    except ray.exceptions.RayError as error:
        raise _worker_error(error) from error
    return _Staged(blocks=[blocks[number] for number in sorted(blocks)], reused=reused)


def _cut(reviewed: Reviewed, block_rows: int) -> Iterator[pa.Table]:
    """Yield the requests of each block."""
    own = [name for name in REQUEST.names if name not in ("waived", "block")]
    for number, start in enumerate(range(0, len(reviewed.samples), block_rows)):
        rows = reviewed.samples[start : start + block_rows]
        columns = {name: [getattr(row, name) for row in rows] for name in own}
        columns["waived"] = [reviewed.waived.get((row.source, row.sha256), ()) for row in rows]
        yield pa.Table.from_pydict({**columns, "block": [number] * len(rows)}, schema=REQUEST)


def _candidates(inputs: _Inputs, staged: _Staged) -> Iterator[Candidate]:
    for sample, (_, outcome) in zip(inputs.samples, staged.rows(), strict=True):
        image = sample.source, sample.sha256
        assert image == (outcome["source"], outcome["sha256"])
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
                others=inputs.others.get(image, ()),
                fingerprint=outcome["fingerprint"],
            )


def _decide(settings: Settings, inputs: _Inputs, candidates: Sequence[Candidate]) -> Assembly:
    def decide() -> Assembly:
        return split_decisions.decide(
            settings,
            candidates,
            taxonomy().names,
            key=inputs.key,
            seed=inputs.seed,
            inputs=inputs.fingerprint,
        )

    return tables.while_away(decide, patience_s=PATIENCE_S)


def _write(parts: Sequence[Part], stage: Stage, progress: OnProgress) -> list[dict[str, Any]]:
    """Write the parts in parallel and return the manifest's entry of each, in the order of `parts`."""
    written: dict[int, dict[str, Any]] = {}
    note = "files of the dataset written"
    progress(0, len(parts), note)
    try:
        for number, entry in ray_map.through_tasks(write_part, parts, stage):
            written[number] = entry
            progress(len(written), len(parts), note)
    except ray.exceptions.RayError as error:
        raise _worker_error(error) from error
    return [written[number] for number in range(len(parts))]


def _worker_error(error: ray.exceptions.RayError) -> EtlError:
    last = str(error).strip().splitlines()[-1]
    return EtlError(f"a worker stopped: {last}. The images done so far are kept: run the same command again")
