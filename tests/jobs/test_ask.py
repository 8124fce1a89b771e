"""Which test images are asked about, and which answers are explained first."""

import numpy as np

from jobs.ask import AskConfig, _choose, _one_a_class


def test_as_many_of_each_class_as_there_are_and_are_wanted() -> None:
    labels_N = np.array([0, 0, 0, 1, 2, 2])
    chosen = _choose(labels_N, AskConfig(per_class=2, seed=1))
    assert np.bincount(labels_N[chosen]).tolist() == [2, 1, 2]
    assert len(set(chosen)) == 5
    assert chosen == _choose(labels_N, AskConfig(per_class=2, seed=1))


def test_the_first_of_each_class_come_first() -> None:
    rows = [{"truth": truth, "n": n} for n, truth in enumerate("aabbc")]
    assert sorted(row["n"] for row in _one_a_class(rows)[:3]) == [0, 2, 4]
    assert len(_one_a_class(rows)) == 5
