"""Waiting ends with what was waited for, or with the caller's error."""

import pytest

from jobs.runtime.entry import JobError
from jobs.runtime.waiting import wait_for


def test_the_first_true_result_is_returned() -> None:
    results = iter([None, "", "there"])
    assert wait_for(lambda: next(results), 5.0, lambda: JobError("late"), every_s=0.0) == "there"


def test_after_the_time_the_caller_s_error_is_raised() -> None:
    with pytest.raises(JobError, match="waited for nothing"):
        wait_for(lambda: None, 0.02, lambda: JobError("waited for nothing"), every_s=0.01)
