"""Two jobs that do the same work at once: the second is told so, and goes on once the first is gone, even killed."""

import time

import pytest
import ray

from train.runs.cluster_lock import ClaimedError, claim

pytestmark = pytest.mark.filterwarnings(r"ignore::DeprecationWarning:ray(\..*)?")  # Ray about itself


class Job:
    """A process that does some work."""

    def hold(self, key: str) -> None:
        self.claim = claim(key)
        self.claim.__enter__()


def test_a_second_job_is_refused_in_one_line_until_the_first_ends(ray_local: None) -> None:
    with claim("run r"):
        with pytest.raises(ClaimedError, match="run r is being worked on by another job"), claim("run r", 1):
            pass
        with claim("run s"):
            pass
    with claim("run r"):
        pass


def test_a_job_that_was_killed_holds_nothing(ray_local: None) -> None:
    first = ray.remote(Job).options(num_cpus=0).remote()
    ray.get(first.hold.remote("run k"))
    with pytest.raises(ClaimedError), claim("run k", 1):
        pass
    ray.kill(first)
    began_s = time.monotonic()
    with claim("run k"):
        pass
    assert time.monotonic() - began_s < 20
