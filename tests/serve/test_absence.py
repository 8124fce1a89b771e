"""When a version counts as away, and under which incident."""

from serve.absence import TOLD_S, Absence

NONE, ONE, OTHER = frozenset[str](), frozenset({"a"}), frozenset({"b"})


def watched(*looks: tuple[frozenset[str], float]) -> Absence:
    absence = Absence("7")
    absence.look(ONE, 0.0)
    for runs, now_s in looks:
        absence.look(runs, now_s)
    return absence


def test_a_version_with_a_replica_is_not_away() -> None:
    assert watched((ONE, 50.0)).since(0.0) is None


def test_a_version_without_one_is_away_and_so_is_what_began_before() -> None:
    absence = watched((NONE, 50.0))
    assert absence.since(49.0) is not None
    assert absence.since(50.0) is not None


def test_what_begins_after_it_is_back_is_its_own_fault_again() -> None:
    absence = watched((NONE, 50.0), (ONE, 55.0))
    absence.answered()
    assert absence.since(52.0) is None
    assert absence.since(50.0) is not None


def test_a_version_whose_replicas_were_all_replaced_was_away_in_between() -> None:
    absence = watched((ONE, 50.0), (OTHER, 55.0))
    assert absence.since(50.0) is not None
    assert absence.since(55.0) is None


def test_a_version_that_kept_one_of_its_replicas_was_not_away() -> None:
    assert watched((ONE | OTHER, 50.0), (OTHER, 55.0)).since(50.0) is None


def test_a_handle_that_was_just_made_may_not_have_been_told_yet() -> None:
    absence = Absence("7")
    absence.look(NONE, 50.0)
    assert absence.since(50.0) is None
    absence.look(NONE, 50.0 + TOLD_S)
    assert absence.since(50.0) is not None


def test_the_death_that_a_request_saw_and_the_absence_after_it_are_one_incident() -> None:
    absence = watched((ONE, 49.0))
    absence.died("actor-7")
    absence.look(NONE, 50.0)
    absence.died(None)
    assert absence.since(50.0) == "actor-7"


def test_a_death_without_a_name_and_the_absence_after_it_are_one_incident() -> None:
    absence = watched()
    name = absence.died(None)
    absence.look(NONE, 50.0)
    assert absence.since(50.0) == name
    assert absence.died(None) == name


def test_a_failure_of_infrastructure_alone_excuses_nobody_who_is_late() -> None:
    absence = watched((ONE, 49.0))
    absence.died(None)  # such as a batch that was given up because the model hangs
    absence.look(ONE, 55.0)
    assert absence.since(50.0) is None


def test_the_next_death_is_another_incident() -> None:
    absence = watched()
    absence.died("actor-7")
    absence.look(NONE, 50.0)
    absence.answered()
    absence.died("actor-8")
    absence.look(NONE, 90.0)
    assert absence.since(90.0) == "actor-8"
