"""Arguments of jobs.ingest."""

import pytest

from jobs import ingest
from jobs.runtime import entry


def test_the_quarantine_is_asked_with_switches_and_numbers() -> None:
    asked = entry.parse(ingest.Arguments, "ingest", ["--report", "--details"])
    assert (asked.report, asked.details, asked.release) == (True, True, None)
    released = entry.parse(ingest.Arguments, "ingest", ["--release", "17", "--label", "normal", "--by", "A"])
    assert (released.release, released.label, released.by) == (17, "normal", "A")


def test_a_patient_s_id_is_taken_as_it_is_written() -> None:
    for written in ("-", "007", "1e3", "null-7", "true"):
        assert entry.parse(ingest.Arguments, "ingest", ["--forget", written]).forget == written


def test_two_wishes_at_once_are_refused_in_one_line() -> None:
    with pytest.raises(ValueError, match="exclude each other: give one"):
        entry.parse(ingest.Arguments, "ingest", ["--forget", "7", "--reject", "3"])
