"""What the object store's answers mean."""

import pytest

from cluster.objects import may_pass


@pytest.mark.parametrize(
    ("message", "passes"),
    [
        ("AWS Error NETWORK_CONNECTION during GetObject operation: curlCode: 7", True),
        ("AWS Error SLOW_DOWN during PutObject operation: busy", True),
        ("AWS Error UNKNOWN (HTTP status 503) during HeadObject operation", True),
        ("AWS Error ACCESS_DENIED during PutObject operation: Access Denied.", False),
        ("AWS Error NO_SUCH_BUCKET during PutObject operation: gone", False),
    ],
)
def test_the_store_s_own_words_say_whether_to_ask_again(message: str, passes: bool) -> None:
    assert may_pass(OSError(message)) is passes


def test_a_missing_object_is_an_answer() -> None:
    assert not may_pass(FileNotFoundError("no such key"))
