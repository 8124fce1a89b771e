import numpy as np
import pytest

from train.inputs.sample_order import Position, batches_per_epoch, epoch_order, global_batch, rank_slice

HASHES = [f"{i:04x}" for i in range(101)]


def test_each_sample_is_in_an_epoch_exactly_once() -> None:
    assert sorted(epoch_order(HASHES, seed=0, epoch=0)) == list(range(101))


def test_the_order_depends_on_seed_and_epoch_and_on_nothing_else() -> None:
    order = epoch_order(HASHES, seed=1, epoch=2)
    assert np.array_equal(order, epoch_order(HASHES, seed=1, epoch=2))
    assert not np.array_equal(order, epoch_order(HASHES, seed=1, epoch=3))
    assert not np.array_equal(order, epoch_order(HASHES, seed=2, epoch=2))
    backwards = HASHES[::-1]
    assert [HASHES[i] for i in order] == [backwards[i] for i in epoch_order(backwards, seed=1, epoch=2)]


def test_the_order_is_the_same_in_every_version_of_the_product() -> None:
    assert epoch_order(HASHES[:8], seed=0, epoch=0).tolist() == [3, 6, 4, 1, 5, 7, 2, 0]


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
def test_ranks_share_each_global_batch_without_rest_or_overlap(world_size: int) -> None:
    order = epoch_order(HASHES, seed=0, epoch=0)
    seen = []
    for batch in range(batches_per_epoch(101, 16)):
        whole = global_batch(order, batch=batch, batch_size=16)
        parts = [rank_slice(whole, rank=rank, world_size=world_size) for rank in range(world_size)]
        assert np.array_equal(np.concatenate(parts), whole)
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
        seen.extend(whole)
    assert np.array_equal(seen, order)


@pytest.mark.parametrize("samples", [1, 15, 16, 17, 18, 101, 257])
def test_no_batch_is_a_small_rest(samples: int) -> None:
    order = np.arange(samples)
    batches = batches_per_epoch(samples, 16)
    sizes = [len(global_batch(order, batch=batch, batch_size=16)) for batch in range(batches)]
    assert sum(sizes) == samples
    assert max(sizes) <= 16
    assert max(sizes) - min(sizes) <= 1


def test_more_ranks_than_samples_leave_some_ranks_without() -> None:
    lengths = [len(rank_slice(np.arange(2), rank=rank, world_size=3)) for rank in range(3)]
    assert sorted(lengths) == [0, 1, 1]


def test_the_position_goes_through_all_batches_and_then_to_the_next_epoch() -> None:
    position = Position()
    for _ in range(3):
        position = position.advanced(3)
    assert position == Position(epoch=1, batch=0)
    assert position.advanced(3) == Position(epoch=1, batch=1)
