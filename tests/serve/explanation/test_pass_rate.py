"""The share of texts that pass the checker."""

from serve.explanation import training_pairs
from serve.explanation.pass_rate import audit

TAUGHT, UNSEEN = training_pairs.taught(400, seed=0), training_pairs.unseen(80, seed=1)


class Parrot:
    """Says what it is told to, whatever it is asked."""

    def __init__(self, texts: list[str]) -> None:
        self.texts = iter(texts)

    def generate(self, prompt: str, *, max_new_tokens: int, deadline_s: float) -> "iter[str]":  # type: ignore[valid-type]
        return iter([next(self.texts)])


def test_an_audit_counts_texts_that_pass_and_what_speaks_against_the_others() -> None:
    good, bad = (training_pairs.answer(one) for one in TAUGHT[:2])
    bad = bad.replace("Please", "You have cancer. Please")
    found = audit(Parrot([good, bad]), TAUGHT[:2])
    assert (found.passing, found.share) == (1, 0.5)
    assert found.problems["new_finding"] == found.problems["diagnosis"] == 1
    assert found.figures("after")["after_passing"] == 0.5
