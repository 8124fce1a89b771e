"""A folder of the file system in place of the bucket; the same code talks to S3 in tests/services."""

import json
from pathlib import Path

import pyarrow.fs
import pytest

from train.checkpoints.store import (
    COMMIT_NAME,
    CheckpointStore,
    DamagedError,
    Mark,
    Receipt,
    Retention,
    folder_name,
    mark_of,
)

A, B = "aaaaaaaa", "bbbbbbbb"


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(pyarrow.fs.LocalFileSystem(), str(tmp_path / "checkpoints"))


def files(folder: Path) -> list[Path]:
    folder.mkdir(exist_ok=True)
    for nth, name in enumerate(("rank-0000.safetensors", "rank-0001.safetensors")):
        (folder / name).write_bytes(bytes([nth]) * 1000)
    return sorted(folder.iterdir())


def write(store: CheckpointStore, folder: Path, mark: Mark, attempt: str = A, *, commit: bool = True) -> str:
    name = folder_name(mark, attempt)
    receipts = {file.name: store.put(name, file) for file in files(folder)}
    if commit:
        store.commit(name, receipts)
    return name


def test_a_name_says_which_moment_of_the_run_it_is_of() -> None:
    for mark in (Mark(step=0), Mark(step=50, rollbacks=1), Mark(step=120, epoch=3)):
        assert mark_of(folder_name(mark, A)) == mark
    with pytest.raises(ValueError, match="trained"):
        mark_of("trained.json")


def test_without_its_commit_object_a_checkpoint_does_not_exist(
    store: CheckpointStore, tmp_path: Path
) -> None:
    assert store.committed() == []
    whole = write(store, tmp_path / "files", Mark(step=50))
    write(store, tmp_path / "files", Mark(step=100), commit=False)
    assert store.committed() == [whole]


def test_the_newest_comes_first_and_a_rollback_after_the_state_that_it_went_back_to(
    store: CheckpointStore, tmp_path: Path
) -> None:
    marks = (Mark(step=100), Mark(step=100, rollbacks=1), Mark(step=9), Mark(step=50, epoch=1))
    for mark in marks:
        write(store, tmp_path / "files", mark)
    assert [mark_of(name) for name in store.committed()] == [marks[1], marks[0], marks[3], marks[2]]


def test_what_was_written_comes_back(store: CheckpointStore, tmp_path: Path) -> None:
    name = write(store, tmp_path / "files", Mark(step=50))
    (tmp_path / "back").mkdir()
    store.fetch(name, tmp_path / "back")
    assert [one.read_bytes() for one in files(tmp_path / "files")] == [
        one.read_bytes() for one in sorted((tmp_path / "back").iterdir())
    ]


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ("gone", "rank-0001.safetensors is missing"),
        ("cut", "rank-0001.safetensors has 980 bytes of 1000"),
        ("changed", "rank-0001.safetensors is not what was written"),
        ("torn commit", "commit.json is torn"),
        ("no commit", "commit.json is missing"),
    ],
)
def test_every_damage_is_found_and_named(
    store: CheckpointStore, tmp_path: Path, damage: str, says: str
) -> None:
    name = write(store, tmp_path / "files", Mark(step=50))
    file = Path(store.root) / name / "rank-0001.safetensors"
    commit = file.with_name(COMMIT_NAME)
    if damage == "gone":
        file.unlink()
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[:-20])
    elif damage == "changed":
        file.write_bytes(b"\x02" + file.read_bytes()[1:])
    elif damage == "torn commit":
        commit.write_bytes(commit.read_bytes()[:-20])
    else:
        commit.unlink()
    (tmp_path / "back").mkdir()
    with pytest.raises(DamagedError, match=says):
        store.fetch(name, tmp_path / "back")


def test_the_newest_and_those_of_kept_epochs_stay_and_what_we_did_not_make_is_left_alone(
    store: CheckpointStore, tmp_path: Path
) -> None:
    marks = [Mark(step=0), Mark(step=10, epoch=1), Mark(step=15), Mark(step=20, epoch=2), Mark(step=25)]
    names = [write(store, tmp_path / "files", mark) for mark in marks]
    strangers = [Path(store.root) / "notes.txt", Path(store.root) / "backup" / names[0] / COMMIT_NAME]
    for one in strangers:
        one.parent.mkdir(parents=True, exist_ok=True)
        one.write_text("mine")
    assert set(store.prune(Retention(newest=2, every_epochs=1), names[-1])) == {names[0], names[2]}
    assert set(store.prune(Retention(newest=1), names[-1])) == {names[1], names[3]}
    assert store.prune(Retention(newest=1), names[-1]) == []
    assert store.committed() == names[-1:]
    assert all(one.read_text() == "mine" for one in strangers)


def test_a_damaged_newer_one_never_costs_the_one_that_was_just_written(
    store: CheckpointStore, tmp_path: Path
) -> None:
    damaged = write(store, tmp_path / "files", Mark(step=100))
    before = write(store, tmp_path / "files", Mark(step=50))
    newest = write(store, tmp_path / "files", Mark(step=60), B)
    assert store.prune(Retention(newest=1), newest) == [before]
    again = write(store, tmp_path / "files", Mark(step=100), B)
    assert store.prune(Retention(newest=1), again) == [damaged, newest]


def test_leftovers_of_other_attempts_are_swept_and_nothing_else(
    store: CheckpointStore, tmp_path: Path
) -> None:
    whole = write(store, tmp_path / "files", Mark(step=50))
    dead = write(store, tmp_path / "files", Mark(step=100), commit=False)
    mine = write(store, tmp_path / "files", Mark(step=100), B, commit=False)
    assert store.sweep(B) == [dead]
    assert store.committed() == [whole]
    left = {one.parent.name for one in Path(store.root).glob("*/*")}
    assert left == {whole, mine}


def test_a_commit_names_every_file_with_its_hash_and_size(store: CheckpointStore, tmp_path: Path) -> None:
    name = write(store, tmp_path / "files", Mark(step=50))
    described = json.loads((Path(store.root) / name / COMMIT_NAME).read_text())["files"]
    assert {one: Receipt(**receipt).bytes for one, receipt in described.items()} == {
        "rank-0000.safetensors": 1000,
        "rank-0001.safetensors": 1000,
    }


def test_a_server_that_is_just_starting_is_not_believed(tmp_path: Path) -> None:
    witness = tmp_path / "run.json"
    store = CheckpointStore(pyarrow.fs.LocalFileSystem(), str(tmp_path / "c"), witness=str(witness))
    with pytest.raises(OSError, match="is starting, or has lost its data"):
        store.ready()
    witness.write_text("{}")
    store.ready()
