"""Where the lungs lie."""

import pytest

from train.evaluation.lung_mask import chest_box, inner_box, two_lungs


@pytest.mark.parametrize("side", [64, 96, 224])
def test_the_lungs_lie_inside_the_box_and_a_border_outside_of_both(side: int) -> None:
    lungs_HW = two_lungs(side).both_HW > 0
    assert lungs_HW[~chest_box(side)].sum() == 0
    assert 0.1 < lungs_HW.mean() < 0.3
    assert not chest_box(side)[0].any()
    assert inner_box(side).mean() == pytest.approx(0.58, abs=0.03)
