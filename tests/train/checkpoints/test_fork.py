from pathlib import Path

import pyarrow.fs
import pytest

from train.checkpoints.fork import BranchError, branch
from train.checkpoints.store import CheckpointStore, DamagedError, Mark, folder_name


def store(folder: Path) -> CheckpointStore:
    return CheckpointStore(pyarrow.fs.LocalFileSystem(), str(folder))


def committed(folder: Path, made: Path) -> CheckpointStore:
    """A store with the checkpoint of one epoch's end."""
    made.write_text('{"about": {"run": "a", "classes": []}, "step": 4}')
    found, name = store(folder), folder_name(Mark(step=4, epoch=1), "0" * 8)
    found.commit(name, {"progress.json": found.put(name, made)})
    return found


def test_a_copy_belongs_to_its_new_run_and_the_original_stays_as_it_was(tmp_path: Path) -> None:
    source, target = committed(tmp_path / "a", tmp_path / "progress.json"), store(tmp_path / "b")
    name = branch(source, 1, target, "b")
    target.fetch(name, tmp_path)
    assert '"run": "b"' in (tmp_path / "progress.json").read_text()
    source.fetch(name, tmp_path)
    assert '"run": "a"' in (tmp_path / "progress.json").read_text()


def test_an_epoch_without_a_checkpoint_is_named(tmp_path: Path) -> None:
    source = committed(tmp_path / "a", tmp_path / "progress.json")
    with pytest.raises(BranchError, match="no checkpoint of the end of epoch 2"):
        branch(source, 2, store(tmp_path / "b"), "b")


def test_a_damaged_checkpoint_is_not_copied(tmp_path: Path) -> None:
    source, target = committed(tmp_path / "a", tmp_path / "progress.json"), store(tmp_path / "b")
    (tmp_path / "a" / source.committed()[0] / "progress.json").write_text("torn")
    with pytest.raises(DamagedError, match=r"progress\.json"):
        branch(source, 1, target, "b")
    assert target.committed() == []
