"""When a version counts as away, and under which incident."""

from serve.absence import TOLD_S, Absence


def watched(*looks: tuple[bool, float]) -> Absence:
    absence = Absence("7")
    absence.look(True, 0.0)
    for runs, now_s in looks:
        absence.look(runs, now_s)
    return absence


def test_a_version_with_a_replica_is_not_away() -> None:
    assert watched((True, 50.0)).since(0.0) is None


def test_a_version_without_one_is_away_and_so_is_what_began_before() -> None:
    absence = watched((False, 50.0))
    assert absence.since(49.0) is not None
    assert absence.since(50.0) is not None


def test_what_begins_after_it_is_back_is_its_own_fault_again() -> None:
    absence = watched((False, 50.0), (True, 55.0))
    absence.answered()
    assert absence.since(52.0) is None
    assert absence.since(50.0) is not None


def test_a_handle_that_was_just_made_may_not_have_been_told_yet() -> None:
    absence = Absence("7")
    absence.look(False, 50.0)
    assert absence.since(50.0) is None
    absence.look(False, 50.0 + TOLD_S)
    assert absence.since(50.0) is not None


def test_the_death_that_a_request_saw_and_the_absence_after_it_are_one_incident() -> None:
    absence = watched((True, 49.0))
    absence.died("actor-7")
    absence.look(False, 50.0)
    absence.died(None)
    assert absence.since(50.0) == "actor-7"


def test_a_death_without_a_name_and_the_absence_after_it_are_one_incident() -> None:
    absence = watched()
    name = absence.died(None)
    absence.look(False, 50.0)
    assert absence.since(50.0) == name
    assert absence.died(None) == name


def test_the_next_death_is_another_incident() -> None:
    absence = watched()
    absence.died("actor-7")
    absence.look(False, 50.0)
    absence.answered()
    absence.died("actor-8")
    absence.look(False, 90.0)
    assert absence.since(90.0) == "actor-8"
