from dataclasses import replace

from tune import figures
from tune import space as spaces
from tune.config import SweepConfig
from tune.suggest import suggest
from tune.sweep_store import Trial

METRIC = "validation_balanced_accuracy"
CONFIG = SweepConfig(random_trials=20)
SPACE = spaces.parse(
    {
        "optim.learning_rate": {"low": 1e-4, "high": 1e-1, "log": True},
        "strategy": {"choices": ["ddp", "fsdp"]},
        "label_smoothing": {"low": 0, "high": 0.2},
    }
)


def trials(count: int) -> list[Trial]:
    """What is reached depends on the smoothing alone; every other trial was stopped after an epoch."""
    made: list[Trial] = []
    for number in range(count):
        settings = suggest(SPACE, {"label_smoothing": 1.0}, made, number, CONFIG, 0)
        values = [settings["label_smoothing"]] * (1 if number % 2 else 3)
        rows = [{"epoch": nth + 1, METRIC: value, "nth": nth} for nth, value in enumerate(values)]
        state = "stopped" if number % 2 else "complete"
        made.append(Trial(number=number, run="r", settings=settings, state=state, rows=rows))
    return made


def test_the_setting_that_decides_is_the_most_important_one() -> None:
    found = figures.importance(trials(16), SPACE, CONFIG)
    assert found is not None
    assert next(iter(found)) == "label_smoothing"
    assert found["label_smoothing"] > 0.8


def test_importance_of_too_few_trials_of_equal_ones_and_under_pbt_is_not_told() -> None:
    made = trials(16)
    assert figures.importance(made[:3], SPACE, CONFIG) is None
    equal = [replace(one, rows=[one.rows[0] | {METRIC: 0.5}]) for one in made]
    assert figures.importance(equal, SPACE, CONFIG) is None
    assert figures.importance(made, SPACE, SweepConfig(scheduler="pbt")) is None


def test_trials_of_different_length_are_compared_where_all_of_them_were() -> None:
    made = trials(4)
    assert {one.epochs for one in figures.at_common_epoch(made, METRIC)} == {1}


def test_pictures_are_png_whatever_trials_there_are() -> None:
    made = trials(6)
    failed = replace(made[0], number=6, state="failed", rows=[])
    drawn = figures.figures([*made, failed], SPACE, CONFIG, "a sweep")
    assert set(drawn) == {"parallel-coordinates.png", "importance.png"}
    assert set(figures.figures(made[:1], SPACE, CONFIG, "one")) == {"parallel-coordinates.png"}
    assert all(blob.startswith(b"\x89PNG") for blob in drawn.values())
