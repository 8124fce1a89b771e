from dataclasses import replace

import numpy as np
import torch

from train.config import AugmentConfig
from train.inputs.augment import DRAWS, augment, draws

NOTHING = AugmentConfig(rotation_degrees=0, shift=0, zoom=0, brightness=0, contrast=0)


def picture(count: int = 2, side: int = 32) -> torch.Tensor:
    return torch.linspace(-2, 2, count * side * side).view(count, 1, side, side).contiguous()


def test_a_view_belongs_to_sample_and_epoch_whatever_else_is_in_the_batch() -> None:
    alone = draws(["b"], seed=5, epoch=1)
    together = draws(["a", "b", "c"], seed=5, epoch=1)
    assert np.array_equal(alone[0], together[1])
    assert not np.array_equal(alone, draws(["b"], seed=5, epoch=2))
    config = AugmentConfig()
    one = augment(picture()[1:], together[1:2], config)
    both = augment(picture(), together[:2], config)
    assert torch.equal(one[0], both[1])


def test_numbers_are_uniform_between_minus_one_and_one() -> None:
    numbers = draws([str(i) for i in range(4000)], seed=0, epoch=0)
    assert numbers.shape == (4000, DRAWS)
    assert numbers.min() >= -1
    assert numbers.max() < 1
    assert np.abs(numbers.mean(axis=0)).max() < 0.05


def test_no_augmentation_changes_nothing() -> None:
    assert torch.equal(augment(picture(), draws(["a", "b"], seed=0, epoch=0), NOTHING), picture())


def test_a_rotation_by_its_whole_range_turns_the_picture() -> None:
    numbers = np.zeros((1, DRAWS))
    numbers[0, 0] = 1.0
    turned = augment(picture(1), numbers, AugmentConfig(rotation_degrees=90, shift=0, zoom=0))
    expected = torch.rot90(picture(1), 1, dims=(2, 3))
    assert torch.allclose(turned, expected, atol=1e-4) or torch.allclose(
        turned, torch.rot90(picture(1), -1, dims=(2, 3)), atol=1e-4
    )


def test_brightness_and_contrast_change_grey_values_only() -> None:
    numbers = np.zeros((1, DRAWS))
    numbers[0, 4], numbers[0, 5] = 1.0, -1.0
    changed = augment(picture(1), numbers, AugmentConfig(brightness=0.5, contrast=0.25))
    assert torch.allclose(changed, picture(1) * 0.75 + 0.5, atol=1e-5)


def test_left_stays_left_unless_flipping_is_asked_for() -> None:
    numbers = np.full((1, DRAWS), -1.0) * np.eye(DRAWS)[6]
    assert torch.equal(augment(picture(1), numbers, NOTHING), picture(1))
    flipped = augment(picture(1), numbers, replace(NOTHING, horizontal_flip=True))
    assert torch.allclose(flipped, picture(1).flip(3), atol=1e-5)
