from collections.abc import Sequence
from dataclasses import replace

from tune import space as spaces
from tune.config import SweepConfig
from tune.suggest import suggest
from tune.sweep_store import Trial

METRIC = "validation_balanced_accuracy"
SPACE = spaces.parse(
    {
        "optim.learning_rate": {"low": 1e-4, "high": 1e-1, "log": True},
        "batch_size": {"choices": [16, 32, 64]},
        "label_smoothing": {"low": 0, "high": 0.2},
    }
)
OWN = {"optim.learning_rate": 1e-3, "batch_size": 64, "label_smoothing": 0.0}
CONFIG = SweepConfig(random_trials=3)


def tried(number: int, settings: spaces.Settings, value: float) -> Trial:
    row = {"epoch": 1, METRIC: value, "nth": number}
    return Trial(number=number, run=f"t{number}", settings=settings, state="complete", rows=[row])


def played(count: int, past: Sequence[Trial] = (), seed: int = 0) -> list[Trial]:
    """Trials one after the other; the better the higher the rate."""
    trials = list(past)
    while len(trials) < count:
        settings = suggest(SPACE, OWN, trials, len(trials), CONFIG, seed)
        trials.append(tried(len(trials), settings, settings["optim.learning_rate"]))
    return trials


def test_the_first_trial_is_the_recipe_as_it_is_where_the_space_has_it() -> None:
    assert suggest(SPACE, OWN, [], 0, CONFIG, 0) == OWN
    outside = OWN | {"label_smoothing": 0.5}
    assert suggest(SPACE, outside, [], 0, CONFIG, 0) != outside


def test_a_sweep_that_was_cut_off_anywhere_goes_on_with_the_suggestions_that_it_would_have_had() -> None:
    whole = played(10)
    for cut in range(10):
        assert played(10, whole[:cut]) == whole


def test_another_seed_and_other_results_give_other_suggestions() -> None:
    whole = played(10)
    assert played(10, seed=1)[1:] != whole[1:]
    changed = [replace(one, rows=[one.rows[0] | {METRIC: -one.rows[0][METRIC]}]) for one in whole[:8]]
    assert suggest(SPACE, OWN, changed, 8, CONFIG, 0) != whole[8].settings


def test_suggestions_lie_in_the_space_and_learn_from_what_was_good() -> None:
    trials = played(24)
    for one in trials:
        assert all(SPACE[name].has(value) for name, value in one.settings.items())
    rates = [one.settings["optim.learning_rate"] for one in trials]
    assert sum(rate > 1e-2 for rate in rates[14:]) > 7  # a third would be chance


def test_a_trial_that_failed_or_was_stopped_or_still_runs_counts_as_what_it_is() -> None:
    past = played(8)
    first = max(past, key=lambda one: one.rows[-1][METRIC])
    for state in ("failed", "stopped", "unfinished"):
        mixed = [replace(one, state=state) if one is first else one for one in past]
        pairs = [
            (suggest(SPACE, OWN, mixed, 8, CONFIG, seed), suggest(SPACE, OWN, past, 8, CONFIG, seed))
            for seed in range(6)
        ]
        assert any(one != other for one, other in pairs), state
