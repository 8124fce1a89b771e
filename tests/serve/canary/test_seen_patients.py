"""A patient counts once."""

import json

import numpy as np

from serve.canary.seen_patients import CAPACITY, NO_PATIENT, SeenPatients, key_of


def test_a_patient_is_new_once_and_known_by_the_step_of_the_last_time() -> None:
    patients = SeenPatients()
    assert patients.mark(np.array([5, 7, 5]), step=1).tolist() == [0, 0, 1]
    assert patients.mark(np.array([5, 5, 9]), step=-2).tolist() == [1, -2, 0]


def test_requests_without_patient_are_each_of_their_own() -> None:
    assert SeenPatients().mark(np.array([NO_PATIENT, NO_PATIENT])).tolist() == [0, 0]
    assert key_of(None) == NO_PATIENT != key_of("")


def test_a_patient_who_keeps_coming_is_remembered_and_memory_stays_small() -> None:
    patients = SeenPatients()
    patients.mark(np.array([1]))
    for start in range(2, 20 * CAPACITY, 1000):
        patients.mark(np.arange(start, start + 1000))
        assert patients.mark(np.array([1])).tolist() == [1]
        patients.age()
    assert len(patients.young) + len(patients.old) < 3 * CAPACITY


def test_they_survive_storage() -> None:
    patients = SeenPatients()
    patients.mark(np.array([1, 2**32 - 1]), step=-3)
    again = SeenPatients.from_dict(json.loads(json.dumps(patients.as_dict())))
    assert (again.young, again.old) == (patients.young, patients.old)
