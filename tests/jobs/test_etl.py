"""Arguments of jobs.etl."""

from data.validation.config import LICENSES
from jobs import etl
from jobs.runtime import entry


def test_validation_is_on_and_its_limits_can_be_given() -> None:
    plain = entry.parse(etl.Arguments, "etl", [])
    assert plain.validate is True
    assert plain.validation.licenses == LICENSES
    told = entry.parse(
        etl.Arguments, "etl", ["--validate", "false", "--validation.allow_unlicensed", "false"]
    )
    assert (told.validate, told.validation.allow_unlicensed) == (False, False)
