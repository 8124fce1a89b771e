"""Checkpoints are written beside training."""

from collections.abc import Callable

import pytest

from tests.train.checkpoints.stores import Unsteady, content
from train.checkpoints.async_writer import StoreUnavailableError
from train.checkpoints.manager import RunCheckpoints
from train.checkpoints.store import Mark


def test_the_end_of_a_run_waits_for_the_store_and_then_says_what_to_do(
    begin: Callable[..., RunCheckpoints], store: Unsteady
) -> None:
    attempt = begin(patience_s=0.5)
    store.broken = ConnectionError("the server went away")
    attempt.commit(Mark(step=10), content("state"))
    with pytest.raises(StoreUnavailableError, match="run the same command again") as caught:
        attempt.flush()
    assert "\n" not in str(caught.value)
    with pytest.raises(StoreUnavailableError):
        attempt.commit(Mark(step=20), content("state"))
