"""What a sweep is named after."""

from dataclasses import replace

from train.config import TrainConfig
from tune import space as spaces
from tune.config import SweepConfig
from tune.sweep import default_name, fingerprint
from tune.sweep_driver import SweepSpec

SPEC = SweepSpec(config=SweepConfig(), train=TrainConfig(), space=spaces.parse(spaces.DEFAULT), seed=0)


def test_the_same_search_over_the_same_data_has_the_same_name() -> None:
    name = default_name(SPEC, "0123456789abcdef")
    assert name == f"sweep-01234567-{fingerprint(SPEC)[:8]}"
    assert name == default_name(replace(SPEC, config=SweepConfig(trials=99)), "0123456789abcdef")


def test_seed_space_and_scheduler_make_another_search() -> None:
    searches = [
        SPEC,
        replace(SPEC, seed=1),
        replace(SPEC, config=SweepConfig(scheduler="pbt")),
        replace(SPEC, space=spaces.within_a_run(SPEC.space)),
    ]
    assert len({fingerprint(spec) for spec in searches}) == 4
