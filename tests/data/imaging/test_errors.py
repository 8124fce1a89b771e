"""The error of an image that cannot be used, and the check of its size."""

import pickle

from data.imaging.preprocess import (
    UnknownTypeError,
)


def test_an_error_keeps_its_reason_between_processes() -> None:
    copy = pickle.loads(pickle.dumps(UnknownTypeError("unknown_type", "3 bytes")))
    assert (type(copy), copy.reason, str(copy)) == (UnknownTypeError, "unknown_type", "3 bytes")
