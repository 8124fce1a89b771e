"""Quarantine, review and forgetting a patient, with the real S3 server, PostgreSQL and Ray Data."""

import csv
import io
import json
import os
import uuid
import zlib
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import psycopg
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cluster.objects import ObjectStore, ObjectStoreError
from cluster.releases.registry import VIT, Registry
from cluster.secrets import keyed_hash, read_key
from cluster.settings import BUCKETS, Settings
from data.catalog import quarantine_review
from data.catalog import tables as catalog
from data.catalog.ingest import ingest
from data.catalog.originals import Originals
from data.catalog.quarantine_review import ReviewError
from data.dataset import etl, versions
from data.dataset.etl import EtlConfig
from data.dataset.parts import Part, StagingError, write_part
from data.dataset.rows import LogicalRow, version_of
from data.dataset.split import SPLITS, split_of
from data.dataset.staging import Stage, stage_block
from data.imaging.preprocess import PixelConfig, to_pixels
from data.privacy import erasure, tombstones
from data.privacy.erasure import ErasureError
from data.sources.manifest import REQUIRED_COLUMNS
from data.validation import dataset_report
from jobs.runtime import quarantine_tables

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
    pytest.mark.usefixtures("ray_local"),
]

PIXELS = PixelConfig(side=32)
RUN = uuid.uuid4().int % 2**32
LABELS = ("normal", "bacterial_pneumonia", "tuberculosis")
Query = Callable[..., list[dict[str, Any]]]


class Platform(Protocol):
    settings: Settings


class Folder:
    """A folder of drawn images with a manifest, under a source name of its own."""

    def __init__(self, path: Path, source: str) -> None:
        self.path, self.source = path, source
        self.code = uuid.uuid4().hex[:8]
        self.begun_at = datetime.now(UTC)
        self.rows: list[dict[str, str]] = []

    def add(self, blob: bytes, label: str = "normal", **columns: str) -> str:
        name = f"{len(self.rows):03d}.png"
        (self.path / name).write_bytes(blob)
        self.rows.append({"path": name, "label": label, "source": self.source, **columns})
        return name

    def who(self, n: int) -> str:
        """Id of a patient that no other test has."""
        return f"patient-{self.code}-{n}"

    def write(self) -> Path:
        with (self.path / "manifest.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, REQUIRED_COLUMNS, restval="")
            writer.writeheader()
            writer.writerows(self.rows)
        return self.path


def png(seed: int, side: int = 48, **how: Any) -> bytes:
    """Noise, no two tests' alike: equal files share one object in the store."""
    test = zlib.crc32(os.environ["PYTEST_CURRENT_TEST"].split(" ")[0].encode())
    image_HW = np.random.default_rng([RUN, test, seed]).integers(0, 256, (side, side), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(image_HW).save(buffer, "png", **how)
    return buffer.getvalue()


@pytest.fixture
def settings(platform: Platform) -> Settings:
    return platform.settings


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path, f"test-{uuid.uuid4().hex[:12]}")


@pytest.fixture
def query(settings: Settings) -> Query:
    def run(text: str, *values: Any) -> list[dict[str, Any]]:
        with catalog.opened(settings) as connection:
            return connection.execute(text.encode(), values).fetchall()

    return run


def make(settings: Settings, folder: Folder) -> etl.EtlReport:
    return etl.run(settings, EtlConfig(pixels=PIXELS, sources=(folder.source,)))


def labels_of(settings: Settings, version: str) -> dict[bytes, str]:
    """Pixels → label, over a whole version."""
    store = ObjectStore(settings)
    classes = versions.manifest(store, version)["classes"]
    return {
        pixels_HW.tobytes(): classes[label]
        for split in SPLITS
        for table in [versions.load_split(store, version, split)]
        for pixels_HW, label in zip(table.pixels_NHW, table.labels_N, strict=True)
    }


def number_of(query: Query, folder: Folder, reason: str) -> int:
    rows = query(
        "SELECT id FROM quarantine WHERE source = %s AND reason = %s ORDER BY id", folder.source, reason
    )
    found: int = rows[0]["id"]
    return found


def test_a_released_image_is_in_the_next_version_although_its_check_would_refuse_it(
    settings: Settings, folder: Folder, query: Query
) -> None:
    for n in range(6):
        folder.add(png(n), LABELS[n % 3], patient_id=f"p{n}")
    tiny = png(50, side=20)
    folder.add(tiny, patient_id="p9")
    ingest(folder.write(), settings)
    first = make(settings, folder)
    assert first.quarantined == {"too_small": 1}
    number = number_of(query, folder, "too_small")
    told = quarantine_review.decide(
        settings, number, "released", by="Dr. A", label="tuberculosis", note="a child's"
    )
    assert told == {
        "id": number,
        "reason": "too_small",
        "decision": "released",
        "label": "tuberculosis",
        "images": 1,
        "changed": True,
    }
    assert (
        quarantine_review.decide(settings, number, "released", by="Dr. B", label="tuberculosis")["changed"]
        is False
    )
    audit = query("SELECT * FROM audit WHERE subject = %s", f"quarantine/{number}")
    assert [(row["actor"], row["action"]) for row in audit] == [("Dr. A", "quarantine_released")]
    assert "child" not in str(audit)
    second = make(settings, folder)
    assert second.version != first.version
    assert second.quarantined == {}
    pixels = to_pixels(tiny, PIXELS, waived=("too_small",)).tobytes()
    assert labels_of(settings, second.version)[pixels] == "tuberculosis"
    ingest(folder.path, settings)
    assert make(settings, folder) == replace(second, reused=True)
    quarantine_review.decide(settings, number, "rejected", by="Dr. B")
    assert make(settings, folder).version == first.version


def test_a_release_for_one_reason_does_not_cover_another(
    settings: Settings, folder: Folder, query: Query
) -> None:
    folder.add(png(1), patient_id="p1")
    blank = io.BytesIO()
    test = zlib.crc32(os.environ["PYTEST_CURRENT_TEST"].encode())
    Image.new("L", (20, 20 + (RUN + test) % 11), 7).save(blank, "png")
    folder.add(blank.getvalue(), patient_id="p2")
    ingest(folder.write(), settings)
    assert make(settings, folder).quarantined == {"too_small": 1}
    quarantine_review.decide(settings, number_of(query, folder, "too_small"), "released", by="t")
    make(settings, folder)
    number = number_of(query, folder, "blank")
    with catalog.opened(settings) as connection:
        entry = next(one for one in quarantine_review.entries(connection) if one.id == number)
    assert (entry.decision, entry.releasable) == (None, True)
    quarantine_review.decide(settings, number, "released", by="t")
    assert make(settings, folder).quarantined == {}


def test_contradictory_labels_are_settled_for_all_images_of_the_pixels(
    settings: Settings, folder: Folder, query: Query
) -> None:
    for n in range(4):
        folder.add(png(n), LABELS[n % 3], patient_id=f"p{n}")
    folder.add(png(9), "normal", patient_id="p9")
    folder.add(png(9, compress_level=0), "covid19", patient_id="p10")
    ingest(folder.write(), settings)
    assert make(settings, folder).quarantined == {"conflicting_label": 2}
    number = number_of(query, folder, "conflicting_label")
    assert quarantine_review.decide(settings, number, "released", by="t", label="covid19")["images"] == 2
    made = make(settings, folder)
    assert made.quarantined == {"duplicate": 1}
    assert labels_of(settings, made.version)[to_pixels(png(9), PIXELS).tobytes()] == "covid19"


def test_rejecting_one_of_two_contradictory_images_frees_the_other(
    settings: Settings, folder: Folder, query: Query
) -> None:
    folder.add(png(1), "normal", patient_id="p1")
    folder.add(png(9), "normal", patient_id="p9")
    folder.add(png(9, compress_level=0), "covid19", patient_id="p10")
    ingest(folder.write(), settings)
    make(settings, folder)
    (wrong,) = query(
        "SELECT q.id FROM quarantine q JOIN samples s USING (source, sha256)"
        " WHERE source = %s AND s.label = 'covid19'",
        folder.source,
    )
    quarantine_review.decide(settings, wrong["id"], "rejected", by="t")
    made = make(settings, folder)
    assert made.quarantined == {"rejected": 1}
    assert labels_of(settings, made.version)[to_pixels(png(9), PIXELS).tobytes()] == "normal"


def test_a_file_whose_checksum_is_wrong_in_the_manifest_is_put_back_from_its_sealed_original(
    settings: Settings, folder: Folder, query: Query
) -> None:
    folder.add(png(1), patient_id="p1")
    folder.add(png(2), "covid19", patient_id="p2", sha256="0" * 64)
    assert ingest(folder.write(), settings).quarantined == 1
    assert make(settings, folder).quarantined == {}
    quarantine_review.decide(settings, number_of(query, folder, "checksum"), "released", by="t")
    made = make(settings, folder)
    assert labels_of(settings, made.version)[to_pixels(png(2), PIXELS).tobytes()] == "covid19"
    rows = query("SELECT patient_pseudonym FROM samples WHERE source = %s", folder.source)
    key = read_key(settings.pseudonym_key_path)
    assert keyed_hash(key, "patient", folder.source, "p2") in {row["patient_pseudonym"] for row in rows}


def test_what_cannot_be_decoded_cannot_be_released(settings: Settings, folder: Folder, query: Query) -> None:
    folder.add(png(1), patient_id="p1")
    folder.add(png(2)[:-300], patient_id="p2")
    folder.add(b"hello there, I am no image " + folder.source.encode(), patient_id="p3")
    (folder.path / "gone.png").write_bytes(b"")
    folder.rows.append({"path": "gone.png", "label": "normal", "source": folder.source})
    ingest(folder.write(), settings)
    make(settings, folder)
    for reason, remedy in (
        ("truncated", "cannot be decoded: bring a sound copy"),
        ("unknown_type", "cannot be decoded: bring a sound copy"),
        ("empty", "put the whole file"),
    ):
        with pytest.raises(ReviewError, match=remedy):
            quarantine_review.decide(settings, number_of(query, folder, reason), "released", by="t")
    assert query("SELECT 1 FROM reviews WHERE source = %s", folder.source) == []
    quarantine_review.decide(settings, number_of(query, folder, "truncated"), "rejected", by="t")
    assert len(query("SELECT 1 FROM reviews WHERE source = %s", folder.source)) == 1


def test_a_decision_that_cannot_be_carried_out_is_one_line(
    settings: Settings, folder: Folder, query: Query
) -> None:
    folder.add(png(1), patient_id="p1")
    folder.add(png(2, side=20), patient_id="p2")
    ingest(folder.write(), settings)
    make(settings, folder)
    number = number_of(query, folder, "too_small")
    with pytest.raises(ReviewError, match=r"there is no image 999999999 in quarantine: .*--report --details"):
        quarantine_review.decide(settings, 999_999_999, "released", by="t")
    with pytest.raises(ReviewError, match="'zebra' is no label; there are normal, "):
        quarantine_review.decide(settings, number, "released", by="t", label="zebra")
    with pytest.raises(ReviewError, match="500 is the most"):
        quarantine_review.decide(settings, number, "released", by="t", note="x" * 501)


def test_the_report_counts_by_source_and_reason_and_shows_no_path_and_no_patient(
    settings: Settings, folder: Folder, query: Query, capsys: pytest.CaptureFixture[str]
) -> None:
    folder.add(png(1), patient_id="Jane-Doe")
    for n in range(3):
        folder.add(png(10 + n, side=20), patient_id=f"Jane-Doe-{n}")
    folder.add(b"hello there, I am no image " + folder.source.encode(), patient_id="Jane-Doe")
    ingest(folder.write(), settings)
    make(settings, folder)
    quarantine_review.decide(
        settings, number_of(query, folder, "too_small"), "released", by="t", note="of Jane"
    )
    told = quarantine_tables.report(settings, details=True)
    mine = [row for row in told["quarantine"] if row["source"] == folder.source]
    assert mine == [
        {"source": folder.source, "reason": "too_small", "count": 3, "open": 2, "released": 1, "rejected": 0}
        | {"releasable": True},
        {"source": folder.source, "reason": "unknown_type", "count": 1, "open": 1, "released": 0}
        | {"rejected": 0, "releasable": False},
    ]
    images = [row for row in told["images"] if row["source"] == folder.source]
    assert [row["decision"] for row in images] == ["released", None, None, None]
    shown = capsys.readouterr().out + json.dumps(told)
    assert folder.source in shown
    assert "Jane" not in shown
    assert ".png" not in shown
    assert "images" not in quarantine_tables.report(settings, details=False)


# Forgetting a patient


def filled(folder: Folder, patients: int = 12) -> Folder:
    """Two images a patient; every third patient has one too small to use besides."""
    for n in range(2 * patients):
        folder.add(png(n), LABELS[n % 3], patient_id=folder.who(n // 2), license="CC0-1.0", age="0.08")
    for n in range(0, patients, 3):
        folder.add(png(1000 + n, side=20), patient_id=folder.who(n), license="CC0-1.0")
    return folder


def traces(settings: Settings, folder: Folder, query: Query, words: set[bytes]) -> list[str]:
    """Where any of the words lies: every object of every bucket, Parquet columns unpacked, and every table.

    No other test has these words, so what was last written before this one began cannot hold them and is not read.
    """
    store, found = ObjectStore(settings), []
    for bucket in BUCKETS:
        for key in written_since(store, bucket, folder.begun_at):
            stored = store.get(bucket, key)
            blob = key.encode() + stored
            if key.endswith(".parquet"):
                for row in pq.read_table(io.BytesIO(stored)).to_pylist():
                    blob += (row.pop("pixels", None) or b"") + repr(row).encode()
            found += [f"{bucket}/{key}" for word in words if word in blob]
    tables = query(
        "SELECT table_name FROM information_schema.tables"
        " WHERE table_schema = 'public' AND table_type = 'BASE TABLE'"
    )
    for table in tables:
        rows = query(f"SELECT t::text AS row FROM {table['table_name']} t")
        text = "\n".join(row["row"] for row in rows).encode()
        found += [f"table {table['table_name']}" for word in words if word in text]
    return found


def written_since(store: ObjectStore, bucket: str, moment: datetime) -> list[str]:
    root = store.path(bucket, "")
    found = store._fs.find(root, detail=True)
    late = moment - timedelta(seconds=2)  # the store's times are whole seconds
    return [path.removeprefix(root) for path, one in found.items() if one["LastModified"] >= late]


def words_of(settings: Settings, folder: Folder, query: Query, patient: str) -> set[bytes]:
    """What may not be left: pseudonym, id, hashes, keys of the originals, pixels."""
    key = read_key(settings.pseudonym_key_path)
    pseudonym = keyed_hash(key, "patient", folder.source, patient)
    words = {pseudonym.encode(), patient.encode() + b'"'}
    originals = Originals.of(settings)
    for row in query("SELECT sha256, raw_key FROM samples WHERE patient_pseudonym = %s", pseudonym):
        blob = originals.get(row["raw_key"])
        words |= {row["sha256"].encode(), row["raw_key"].encode(), blob}
        words.add(to_pixels(blob, PIXELS, waived=("too_small",)).tobytes())
    assert len(words) >= 10
    return words


def everything(settings: Settings, version: str) -> dict[str, tuple[Any, ...]]:
    """Sample hash → the whole row with its pixels."""
    store = ObjectStore(settings)
    rows: dict[str, tuple[Any, ...]] = {}
    for split in SPLITS:
        table = versions.load_split(store, version, split)
        for n, sample in enumerate(table.sample_hashes):
            rows[sample] = (
                split,
                table.pixels_NHW[n].tobytes(),
                int(table.labels_N[n]),
                table.groups[n],
                table.sources[n],
                table.ages[n],
                table.sha256s[n],
            )
    return rows


def stage_leftovers(settings: Settings, folder: Folder) -> list[str]:
    """What a killed `etl` leaves: a staged block, and the parts of a version that was never published; and a page."""
    store = ObjectStore(settings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ObjectStore, "delete", lambda *_: None)
        version = make(settings, folder).version
    unpublished, leftovers = uuid.uuid4().hex[:16], []
    for part in store.keys("datasets", f"{version}/data/"):
        leftovers.append(part.replace(version, unpublished))
        store.put("datasets", leftovers[-1], store.get("datasets", part))
    return [*leftovers, dataset_report.publish(settings, version)]


def test_forgetting_leaves_no_trace_and_every_other_row_as_it_was(
    settings: Settings, folder: Folder, query: Query, tmp_path: Path
) -> None:
    ingest(filled(folder).write(), settings)
    leftovers = stage_leftovers(settings, folder)
    version = make(settings, folder).version
    number = number_of(query, folder, "too_small")
    quarantine_review.decide(settings, number, "released", by="t")
    other = make(settings, folder).version
    registry = Registry(settings)
    model = registry.register(VIT, f"bundles/{folder.source}", None, {"dataset_version": version})
    patients = {row["patient_pseudonym"] for row in query("SELECT patient_pseudonym FROM samples")}
    who = next(
        folder.who(n) for n in range(12) if _is_patient(settings, folder, query, number, folder.who(n))
    )
    words = words_of(settings, folder, query, who)
    assert {where.split("/")[0] for where in traces(settings, folder, query, words)} >= {
        "datasets",
        "raw",
        "quarantine",
        "table samples",
        "table quarantine",
        "table reviews",
    }
    before = {name: everything(settings, name) for name in (version, other)}
    done = erasure.erase(settings, who, by="t")
    assert traces(settings, folder, query, words) == []
    assert (done.source, done.images, done.quarantined, done.again) == (folder.source, 3, 1, False)
    assert set(done.dataset_versions) == {version, other}
    assert done.model_versions == (f"{VIT}/{model}",)
    store = ObjectStore(settings)
    gone = [key for key in leftovers if not store.exists("datasets", key)]
    assert len(gone) == 2, "the page, and the part on whose side the patient was"
    assert leftovers[-1] in gone
    for name, rows in before.items():
        after = everything(settings, name)
        assert rows.items() >= after.items()
        described = versions.manifest(store, name)
        assert len(rows) - len(after) == len(described["tombstones"]) == (2 if name == version else 3)
        assert sum(sum(by.values()) for by in described["counts"].values()) == len(after)
        assert described["sources"] == {folder.source: len(after)}
        assert described["licenses"] == {"CC0-1.0": len(after)}
        assert _name_of(store, described) == name
        assert (
            query("SELECT manifest FROM dataset_versions WHERE version = %s", name)[0]["manifest"]
            == described
        )
    left = {row["patient_pseudonym"] for row in query("SELECT patient_pseudonym FROM samples")}
    assert len(patients - left) == 1
    audit = query("SELECT * FROM audit WHERE subject = %s", f"patient/{done.mark}")
    assert [row["action"] for row in audit] == ["forget_patient"]
    assert audit[0]["detail"]["rows"] == {"placements": 3, "quarantine": 1, "reviews": 1, "samples": 3}
    assert set(audit[0]["detail"]["dataset_versions"]) == {version, other}
    again = erasure.erase(settings, who, by="t")
    assert again == replace(done, images=0, quarantined=0, objects=0, staged=0, again=True)
    assert len(query("SELECT 1 FROM audit WHERE subject = %s", f"patient/{done.mark}")) == 1
    back = ingest(folder.path, settings)
    assert (back.forgotten, back.ingested) == (3, 0)
    assert traces(settings, folder, query, words) == []


def _is_patient(settings: Settings, folder: Folder, query: Query, number: int, who: str) -> bool:
    pseudonym = keyed_hash(read_key(settings.pseudonym_key_path), "patient", folder.source, who)
    return bool(
        query(
            "SELECT 1 FROM quarantine q JOIN samples s USING (source, sha256)"
            " WHERE q.id = %s AND s.patient_pseudonym = %s",
            number,
            pseudonym,
        )
    )


def _name_of(store: ObjectStore, described: dict[str, Any]) -> str:
    """The name computed again from what is left: rows that are there and hashes of those that are not."""
    rows = []
    for part in described["parts"]:
        table = versions.without_tombstones(
            pq.read_table(io.BytesIO(versions.read_part(store, described["version"], part)))
        )
        rows += [
            LogicalRow(**{**row, "age": row["age"] and float(str(np.float32(row["age"])))})
            for row in table.drop_columns(["pixels"]).to_pylist()
        ]
    return version_of(rows, described["settings"], [one["row"] for one in described["tombstones"]])


class Killed(BaseException):
    """As a process dies: no handler of ours may catch it."""


def state(settings: Settings, folder: Folder, query: Query, version: str) -> tuple[Any, ...]:
    """All that forgetting leaves of one source."""
    store = ObjectStore(settings)
    described = versions.manifest(store, version)
    return (
        everything(settings, version).keys(),
        store.keys("datasets", version),
        [one["row"] for one in described["tombstones"]],
        query("SELECT sha256 FROM samples WHERE source = %s ORDER BY 1", folder.source),
        query("SELECT sha256 FROM quarantine WHERE source = %s ORDER BY 1", folder.source),
        query("SELECT count(*) FROM forgotten WHERE finished_at IS NULL"),
    )


def test_forgetting_that_is_killed_at_any_step_is_finished_by_the_same_command(
    settings: Settings, folder: Folder, query: Query, monkeypatch: pytest.MonkeyPatch
) -> None:
    patients = 30
    ingest(filled(folder, patients).write(), settings)
    version = make(settings, folder).version
    every_word: set[bytes] = set()
    killed, nth = True, 0
    while killed:
        assert nth < patients
        who = folder.who(nth)
        words = words_of_any(settings, folder, query, who)
        before = everything(settings, version)
        survived = {key: row for key, row in before.items() if row[6].encode() not in words}
        with monkeypatch.context() as patch:
            _kill_at(patch, nth)
            try:
                erasure.erase(settings, who, by="t")
                killed = False
            except Killed:
                pass
        assert everything(settings, version).items() >= survived.items()
        if nth in (1, 6, 12):  # a dataset made in between neither holds the patient nor brings it back
            make(settings, folder)
        done = erasure.erase(settings, who, folder.source, by="t")
        assert version in done.dataset_versions
        assert everything(settings, version) == survived
        once = state(settings, folder, query, version)
        assert erasure.erase(settings, who, folder.source, by="t").again
        assert state(settings, folder, query, version) == once
        audit = query("SELECT detail FROM audit WHERE subject = %s", f"patient/{done.mark}")
        assert len(audit) == 1
        assert version in audit[0]["detail"]["dataset_versions"]
        every_word |= words
        nth += 1
    assert nth > 10
    assert traces(settings, folder, query, every_word) == []


def words_of_any(settings: Settings, folder: Folder, query: Query, patient: str) -> set[bytes]:
    key = read_key(settings.pseudonym_key_path)
    pseudonym = keyed_hash(key, "patient", folder.source, patient)
    rows = query("SELECT sha256, raw_key FROM samples WHERE patient_pseudonym = %s", pseudonym)
    assert len(rows) >= 2
    return {
        pseudonym.encode(),
        *(row["sha256"].encode() for row in rows),
        *(r["raw_key"].encode() for r in rows),
    }


def _kill_at(patch: pytest.MonkeyPatch, nth: int) -> None:
    """Die before the nth change that forgetting makes, whatever it is."""
    count = 0

    def dying(method: Any) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal count
            count += 1
            if count > nth:
                raise Killed
            return method(*arguments, **named)

        return call

    patch.setattr(ObjectStore, "put", dying(ObjectStore.put))
    patch.setattr(ObjectStore, "delete", dying(ObjectStore.delete))
    patch.setattr(erasure.erased_patients, "set_marks", dying(erasure.erased_patients.set_marks))
    patch.setattr(erasure.image_rows, "delete", dying(erasure.image_rows.delete))
    patch.setattr(erasure.Registry, "trained_on", dying(erasure.Registry.trained_on))
    patch.setattr(erasure, "audit", dying(erasure.audit))


def test_a_reader_between_the_old_manifest_and_the_new_parts_reads_the_new_manifest(
    settings: Settings, folder: Folder, query: Query, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest(filled(folder, 6).write(), settings)
    version = make(settings, folder).version
    store = ObjectStore(settings)
    told = [versions.manifest(store, version)]
    erasure.erase(settings, folder.who(0), by="t")
    erasure.erase(settings, folder.who(1), by="t")
    wanted = everything(settings, version)
    read = versions.manifest
    for split in SPLITS:
        stale = [*told]
        monkeypatch.setattr(
            versions, "manifest", lambda *where, stale=stale: stale.pop() if stale else read(*where)
        )
        table = versions.load_split(store, version, split)
        assert set(table.sample_hashes) == {key for key, row in wanted.items() if row[0] == split}
        assert stale == []


def test_the_same_file_under_another_name_goes_too_and_does_not_come_back(
    settings: Settings, folder: Folder, query: Query, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = Folder(tmp_path_factory.mktemp("other"), f"{folder.source}-b")
    folder.add(png(1), patient_id="p1")
    folder.add(png(2), patient_id="p2")
    other.add(png(1), patient_id="somebody")
    other.add(png(3), patient_id="p3")
    for one in (folder, other):
        ingest(one.write(), settings)
    done = erasure.erase(settings, "p1", folder.source, by="t")
    assert (done.images, done.objects) == (2, 1)
    back = ingest(other.path, settings)
    assert (back.forgotten, back.already, back.ingested) == (1, 1, 0)


def test_an_unknown_patient_or_one_of_two_sources_is_one_clear_line_without_the_id(
    settings: Settings, folder: Folder, query: Query, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = Folder(tmp_path_factory.mktemp("other"), f"{folder.source}-b")
    folder.add(png(1), patient_id="Jane-Doe-7")
    other.add(png(2), patient_id="Jane-Doe-7")
    for one in (folder, other):
        ingest(one.write(), settings)
    with pytest.raises(ErasureError, match="no patient of this id in: ") as unknown:
        erasure.erase(settings, "John-Roe", by="t")
    with pytest.raises(ErasureError, match=r"several sources .*--forget_source") as several:
        erasure.erase(settings, "Jane-Doe-7", by="t")
    assert folder.source in str(several.value)
    for caught in (unknown, several):
        assert "\n" not in str(caught.value)
        assert "John" not in str(caught.value)
        assert "Jane" not in str(caught.value)
    assert erasure.erase(settings, "Jane-Doe-7", other.source, by="t").images == 1
    assert len(query("SELECT 1 FROM samples WHERE source = %s", folder.source)) == 1


def test_the_id_is_read_from_standard_input(
    settings: Settings, folder: Folder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder.add(png(1), patient_id="Jane Doe")
    ingest(folder.write(), settings)
    monkeypatch.setattr("sys.stdin", io.StringIO("Jane Doe\n"))
    told = quarantine_tables.forget_patient(settings, "-", folder.source, by="t")
    assert told["forgotten"]["images"] == 1
    assert "Jane" not in json.dumps(told) + capsys.readouterr().out
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    with pytest.raises(ErasureError, match="no patient's id was given"):
        quarantine_tables.forget_patient(settings, "-", None, by="t")


def test_a_damaged_part_that_held_the_patient_is_removed_and_the_rest_goes_on(
    settings: Settings, folder: Folder, query: Query
) -> None:
    ingest(filled(folder, 6).write(), settings)
    version = make(settings, folder).version
    store = ObjectStore(settings)
    key = next(part["key"] for part in versions.manifest(store, version)["parts"])
    hit = tombstones.columns_of(store, key)["sha256"].to_pylist()[0]
    (row,) = query(
        "SELECT patient_pseudonym FROM samples WHERE source = %s AND sha256 = %s", folder.source, hit
    )
    pseudonyms = {
        keyed_hash(read_key(settings.pseudonym_key_path), "patient", folder.source, folder.who(n)): n
        for n in range(6)
    }
    who = folder.who(pseudonyms[row["patient_pseudonym"]])
    words = words_of(settings, folder, query, who)
    table = pq.read_table(io.BytesIO(store.get("datasets", key)))
    changed = io.BytesIO()
    pq.write_table(table, changed, compression="none")
    store.put("datasets", key, changed.getvalue())
    done = erasure.erase(settings, who, folder.source, by="t")
    assert done.images >= 2
    assert version in done.dataset_versions
    assert not store.exists("datasets", key)
    assert traces(settings, folder, query, words) == []
    assert erasure.erase(settings, who, folder.source, by="t").again


def test_a_store_that_refuses_is_one_line_and_the_next_try_finishes(
    settings: Settings, folder: Folder
) -> None:
    folder.add(png(1), patient_id=folder.who(1))
    ingest(folder.write(), settings)
    with pytest.raises(ObjectStoreError, match="make status") as caught:
        erasure.erase(replace(settings, s3_secret_key="wrong"), folder.who(1), by="t")
    assert "\n" not in str(caught.value)
    assert erasure.erase(settings, folder.who(1), by="t").images == 1


def test_forgetting_waits_for_a_running_etl(settings: Settings) -> None:
    with catalog.locked(settings, erasure.erased_patients.LOCK, shared=True):
        with catalog.opened(settings) as connection:
            connection.execute("SET lock_timeout = '200ms'")
            with pytest.raises(psycopg.errors.LockNotAvailable):
                connection.execute(
                    "SELECT pg_advisory_lock(hashtextextended(%s, 0))", [erasure.erased_patients.LOCK]
                )
            connection.execute(
                "SELECT pg_advisory_lock_shared(hashtextextended(%s, 0))", [erasure.erased_patients.LOCK]
            )


def test_pixels_of_a_released_image_are_made_anew_where_what_was_staged_is_gone(
    settings: Settings, folder: Folder, query: Query
) -> None:
    tiny = png(1, side=20)
    folder.add(tiny, patient_id=folder.who(1))
    ingest(folder.write(), settings)
    (row,) = query(
        "SELECT source, sha256, label, view, raw_key FROM samples WHERE source = %s", folder.source
    )
    stage = Stage(settings=settings, prefix=f"_staging/{folder.source}", pixels=PIXELS, fresh=False)
    outcome, _ = stage_block(0, [{**row, "waived": ["too_small"]}], stage)
    (staged,) = outcome.to_pylist()
    store = ObjectStore(settings)
    store.delete("datasets", [stage.pixels_key(0)])
    kept = {name: row[name] for name in ("source", "sha256", "label", "view")}
    logical_row = LogicalRow(
        **kept,
        sample_hash=staged["sample_hash"],
        label_index=0,
        group_key="g",
        split="train",
        sex=None,
        age=None,
        site=None,
    )
    key = f"{stage.prefix}/part.parquet"
    part = Part(key=key, split="train", rows=(logical_row,), blocks=(0,))
    with pytest.raises(StagingError, match="gives too_small now"):
        write_part(part, stage)
    write_part(replace(part, waived={(row["source"], row["sha256"]): ("too_small",)}), stage)
    written = pq.read_table(io.BytesIO(store.get("datasets", key)))["pixels"].to_pylist()
    assert written == [to_pixels(tiny, PIXELS, waived=("too_small",)).tobytes()]
    store.delete("datasets", store.keys("datasets", stage.prefix))


def test_the_page_of_a_version_goes_and_is_made_again_without_the_patient(
    settings: Settings, folder: Folder
) -> None:
    ingest(filled(folder, 8).write(), settings)
    version = make(settings, folder).version
    store = ObjectStore(settings)
    page = dataset_report.publish(settings, version)
    erasure.erase(settings, folder.who(1), by="t")
    assert not store.exists("datasets", page)
    assert dataset_report.publish(settings, version) == page
    left = len(everything(settings, version))
    assert left == 14
    tables = dataset_report.collect(settings, version).tables
    assert [sum(table.sums) for table in tables] == [left] * len(tables)
    assert sum(len(stamps) for _, stamps in dataset_report.collect(settings, version).contact) == left


def test_who_was_tied_to_a_forgotten_patient_stays_on_the_same_side(
    settings: Settings, folder: Folder, query: Query
) -> None:
    key = read_key(settings.pseudonym_key_path)
    pseudonyms = {folder.who(n): keyed_hash(key, "patient", folder.source, folder.who(n)) for n in range(60)}
    groups = {who: keyed_hash(key, "group of a patient", name) for who, name in pseudonyms.items()}
    goes, stays = next(
        (one, other)
        for one in groups
        for other in groups
        if groups[one] < groups[other] and split_of(groups[one], key) != split_of(groups[other], key)
    )
    folder.add(png(1), patient_id=goes)
    folder.add(png(1, compress_level=0), patient_id=stays)
    folder.add(png(2), patient_id=stays)
    folder.add(png(3), patient_id="p3")
    ingest(folder.write(), settings)

    def side_of_what_stays() -> str:
        pixels = to_pixels(png(2), PIXELS).tobytes()
        made = everything(settings, make(settings, folder).version)
        return str(next(row[0] for row in made.values() if row[1] == pixels))

    assert side_of_what_stays() == split_of(groups[goes], key)
    assert len(query("SELECT 1 FROM placements WHERE patient_pseudonym = %s", pseudonyms[goes])) == 1
    erasure.erase(settings, goes, by="t")
    assert query("SELECT 1 FROM placements WHERE patient_pseudonym = %s", pseudonyms[goes]) == []
    assert side_of_what_stays() == split_of(groups[goes], key)


def test_a_withheld_image_of_a_forgotten_patient_is_listed_no_more(
    settings: Settings, folder: Folder, query: Query
) -> None:
    for n in range(16):
        folder.add(png(n), patient_id=f"p{n}")
    ingest(folder.write(), settings)
    sides = {row[1]: row[0] for row in everything(settings, make(settings, folder).version).values()}
    side_of = {n: sides[to_pixels(png(n), PIXELS).tobytes()] for n in range(16)}
    one, other = next((n, m) for n in range(16) for m in range(16) if side_of[n] < side_of[m])
    for n in (one, other):
        folder.add(png(n, compress_level=0), patient_id=folder.who(0))
    folder.add(png(16), patient_id="p16")  # without a new row it would be the same version
    ingest(folder.write(), settings)
    made = make(settings, folder)
    assert made.quarantined == {"would_join_two_sides": 2}
    words = words_of_any(settings, folder, query, folder.who(0))
    store = ObjectStore(settings)
    assert len(versions.manifest(store, made.version)["withheld"]) == 2
    erasure.erase(settings, folder.who(0), by="t")
    assert versions.manifest(store, made.version)["withheld"] == []
    assert traces(settings, folder, query, words) == []
