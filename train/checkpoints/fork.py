"""Fork a run from a checkpoint of another: copied, with the name of its new run in it.

The two runs have the same model on the same data; the training settings may differ from there on.
"""

import json
from pathlib import Path

from cluster.expected import ExpectedError
from train.checkpoints.state import PROGRESS_NAME
from train.checkpoints.store import COMMIT_NAME, CheckpointStore, mark_of
from train.checkpoints.temp_folders import scratch


class BranchError(ExpectedError):
    """There is no such checkpoint to begin with; the message names it."""


def branch(source: CheckpointStore, epoch: int, target: CheckpointStore, run_key: str) -> str:
    """Copy the checkpoint at the end of an epoch, every file verified; return its name in the target.

    Args:
        run_key: identity of the run that the target belongs to.
    Raises:
        BranchError: no checkpoint of that epoch exists.
        DamagedError: a file differs from what was written.
    """
    name = next((name for name in source.committed() if mark_of(name).epoch == epoch), None)
    if name is None:
        raise BranchError(f"{source.root} has no checkpoint of the end of epoch {epoch} to begin with")
    with scratch() as folder:
        source.fetch(name, folder)
        _rename(folder / PROGRESS_NAME, run_key)
        files = sorted(file for file in folder.iterdir() if file.name != COMMIT_NAME)
        target.commit(name, {file.name: target.put(name, file) for file in files})
    return name


def _rename(progress: Path, run_key: str) -> None:
    host = json.loads(progress.read_text())
    host["about"]["run"] = run_key
    progress.write_text(json.dumps(host))
