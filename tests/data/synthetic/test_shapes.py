"""The shapes that synthetic X-rays are made of."""

import numpy as np

from data.synthetic.shapes import Plane, cloud, dome, pose, step


def test_a_step_is_0_outside_and_1_inside_and_half_on_the_border() -> None:
    assert step(np.array([-1, -0.05, 0, 0.05, 1], np.float32), 0.1).tolist() == [0, 0, 0.5, 1, 1]


def test_a_dome_is_1_in_its_centre_and_0_beyond_its_size() -> None:
    plane = Plane(np.array([[0.5, 0.6, 0.9]]), np.array([[0.0, 0.0, 0.0]]))
    assert np.allclose(dome(plane, (0.5, 0.0), (0.2, 0.2)), [[1, 0.75**2, 0]])


def test_clouds_are_of_the_asked_shape_and_follow_from_the_seed() -> None:
    drawn_HW, again_HW = (cloud(np.random.default_rng(1), (40, 80), 4) for _ in range(2))
    assert drawn_HW.shape == (40, 80)
    assert np.array_equal(drawn_HW, again_HW)
    assert 0.3 < cloud(np.random.default_rng(1), (200, 200), 20).std() < 1.5


def test_the_longer_side_of_a_pose_spans_the_body() -> None:
    plane = pose(np.random.default_rng(0), (60, 40), turn_deg=0, shift=0)
    assert plane.u_HW.shape == plane.v_HW.shape == (60, 40)
    assert 1.8 < plane.v_HW.max() - plane.v_HW.min() < 2.4
    assert 1.1 < plane.u_HW.max() - plane.u_HW.min() < 1.7
