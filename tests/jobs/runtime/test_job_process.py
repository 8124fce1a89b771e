"""A job that runs as a process of its own."""

import pytest

from jobs.runtime.entry import JobError
from jobs.runtime.job_process import last_line


def test_a_job_that_failed_or_said_nothing_is_an_error() -> None:
    assert last_line("job", 0, ["noise", '{"job": "train", "status": "ok"}', "(raylet) a worker died"]) == {
        "job": "train",
        "status": "ok",
    }
    with pytest.raises(JobError, match="ended with 1"):
        last_line("job", 1, ['{"job": "train", "status": "failed"}'])
    with pytest.raises(JobError, match="ended with 0"):
        last_line("job", 0, ["noise"])
