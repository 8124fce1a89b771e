"""A patient counts once."""

import json

import numpy as np

from serve.patients import CAPACITY, NOBODY, Patients, key_of


def test_a_patient_is_new_once_and_again_in_another_step_but_not_at_all() -> None:
    patients = Patients()
    first_N, fresh_N = patients.meet(np.array([5, 7, 5]), step=1)
    assert first_N.tolist() == [True, True, False]
    assert fresh_N.tolist() == [True, True, False]
    first_N, fresh_N = patients.meet(np.array([5, 5, 9]), step=2)
    assert first_N.tolist() == [False, False, True]
    assert fresh_N.tolist() == [True, False, True]


def test_requests_without_patient_are_each_of_their_own() -> None:
    first_N, _ = Patients().meet(np.array([NOBODY, NOBODY]))
    assert first_N.tolist() == [True, True]
    assert key_of(None) == NOBODY != key_of("")


def test_a_patient_who_keeps_coming_is_remembered_and_memory_stays_small() -> None:
    patients = Patients()
    patients.meet(np.array([1]))
    for start in range(2, 20 * CAPACITY, 1000):
        patients.meet(np.arange(start, start + 1000))
        first_N, _ = patients.meet(np.array([1]))
        assert not first_N[0]
        patients.age()
    assert len(patients.young) + len(patients.old) < 3 * CAPACITY


def test_they_survive_storage() -> None:
    patients = Patients()
    patients.meet(np.array([1, 2**32 - 1]), step=3)
    again = Patients.from_dict(json.loads(json.dumps(patients.as_dict())))
    assert (again.young, again.old) == (patients.young, patients.old)
