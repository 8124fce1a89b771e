import pytest

from train.config import TrainConfig
from tune.capacity import CapacityError, Node, concurrent, room

TWO = TrainConfig(num_workers=2)


@pytest.mark.parametrize(
    ("nodes", "config", "expected"),
    [
        ([Node(cpus=2)], TWO, 1),
        ([Node(cpus=7)], TWO, 3),
        ([Node(cpus=1), Node(cpus=1)], TWO, 1),
        ([Node(cpus=3), Node(cpus=3)], TrainConfig(num_workers=2, cpus_per_worker=2), 1),
        ([Node(cpus=3), Node(cpus=1)], TrainConfig(num_workers=2, cpus_per_worker=2), 0),
        ([Node(cpus=3)], TrainConfig(num_workers=4, min_workers=1), 3),
        ([Node(cpus=64, gpus=4)], TrainConfig(num_workers=4, use_gpu=True), 1),
        ([Node(cpus=64)], TrainConfig(num_workers=4, use_gpu=True), 0),
    ],
)
def test_workers_are_packed_whole_onto_nodes(nodes: list[Node], config: TrainConfig, expected: int) -> None:
    assert room(nodes, config) == expected


def test_never_more_trials_than_there_is_room_for_than_are_wanted_or_than_there_are() -> None:
    nodes = [Node(cpus=16)]
    assert concurrent(nodes, TWO, wanted=0, trials=100) == 8
    assert concurrent(nodes, TWO, wanted=3, trials=100) == 3
    assert concurrent(nodes, TWO, wanted=0, trials=2) == 2
    assert concurrent(nodes, TWO, wanted=50, trials=100) == 8


def test_where_not_even_one_trial_has_room_one_line_says_what_it_takes_and_what_there_is() -> None:
    with pytest.raises(
        CapacityError, match=r"takes 2 workers of 4 CPUs, and the nodes have 4 CPUs"
    ) as caught:
        concurrent([Node(cpus=4)], TrainConfig(cpus_per_worker=4), wanted=0, trials=3)
    assert "\n" not in str(caught.value)
