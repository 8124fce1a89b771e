"""The limits of validation."""

import pytest

from data.validation.config import ValidationConfig


def test_an_impossible_limit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"validation\.chance is a share"):
        ValidationConfig(chance=2)
