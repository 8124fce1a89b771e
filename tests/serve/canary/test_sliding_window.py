"""The last minutes of both arms."""

import numpy as np

from serve.canary.sliding_window import CANARY, CHAMPION, SlidingWindow


def minute(requests: int, errors: int) -> np.ndarray:
    return np.array([[requests, errors, 0, 0], [9 * requests, 0, 0, 0]])


def test_one_burst_is_not_five_minutes() -> None:
    window = SlidingWindow(5)
    for errors in (0, 0, 20, 0, 0):
        window.close(minute(100, errors), skipped=0)
    assert window.full
    assert window.share(CANARY, "errors") == 0.04
    assert not window.sustained(CANARY, "errors", 0.01)
    window.close(minute(100, 8), skipped=0)
    assert window.sustained(CANARY, "errors", 0.01)
    assert not window.sustained(CHAMPION, "errors", 0.01)


def test_minutes_without_requests_push_old_ones_out() -> None:
    window = SlidingWindow(5)
    window.close(minute(100, 5), skipped=4)
    assert window.requests(CANARY) == 100
    window.close(minute(10, 0), skipped=1000)
    assert window.requests(CANARY) == 0
    assert not window.sustained(CANARY, "errors", 0.01)
