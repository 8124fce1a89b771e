"""When a version counts as away, and under which incident."""

from serve.front_door.replica_outage import DISCOVERY_S, ReplicaOutage

NONE, ONE, OTHER = frozenset[str](), frozenset({"a"}), frozenset({"b"})


def watched(*looks: tuple[frozenset[str], float]) -> ReplicaOutage:
    outage = ReplicaOutage("7")
    outage.observe(ONE, 0.0)
    for runs, now_s in looks:
        outage.observe(runs, now_s)
    return outage


def test_a_version_with_a_replica_is_not_away() -> None:
    assert watched((ONE, 50.0)).outage_since(0.0) is None


def test_a_version_without_one_is_away_and_so_is_what_began_before() -> None:
    outage = watched((NONE, 50.0))
    assert outage.outage_since(49.0) is not None
    assert outage.outage_since(50.0) is not None


def test_what_begins_after_it_is_back_is_its_own_fault_again() -> None:
    outage = watched((NONE, 50.0), (ONE, 55.0))
    outage.answered()
    assert outage.outage_since(52.0) is None
    assert outage.outage_since(50.0) is not None


def test_a_version_whose_replicas_were_all_replaced_was_away_in_between() -> None:
    outage = watched((ONE, 50.0), (OTHER, 55.0))
    assert outage.outage_since(50.0) is not None
    assert outage.outage_since(55.0) is None


def test_a_version_that_kept_one_of_its_replicas_was_not_away() -> None:
    assert watched((ONE | OTHER, 50.0), (OTHER, 55.0)).outage_since(50.0) is None


def test_a_handle_that_was_just_made_may_not_have_been_told_yet() -> None:
    outage = ReplicaOutage("7")
    outage.observe(NONE, 50.0)
    assert outage.outage_since(50.0) is None
    outage.observe(NONE, 50.0 + DISCOVERY_S)
    assert outage.outage_since(50.0) is not None


def test_the_death_that_a_request_saw_and_the_absence_after_it_are_one_incident() -> None:
    outage = watched((ONE, 49.0))
    outage.record_death("actor-7")
    outage.observe(NONE, 50.0)
    outage.record_death(None)
    assert outage.outage_since(50.0) == "actor-7"


def test_a_death_without_a_name_and_the_absence_after_it_are_one_incident() -> None:
    outage = watched()
    name = outage.record_death(None)
    outage.observe(NONE, 50.0)
    assert outage.outage_since(50.0) == name
    assert outage.record_death(None) == name


def test_a_failure_of_infrastructure_alone_excuses_nobody_who_is_late() -> None:
    outage = watched((ONE, 49.0))
    outage.record_death(None)  # such as a batch that was given up because the model hangs
    outage.observe(ONE, 55.0)
    assert outage.outage_since(50.0) is None


def test_the_next_death_is_another_incident() -> None:
    outage = watched()
    outage.record_death("actor-7")
    outage.observe(NONE, 50.0)
    outage.answered()
    outage.record_death("actor-8")
    outage.observe(NONE, 90.0)
    assert outage.outage_since(90.0) == "actor-8"
