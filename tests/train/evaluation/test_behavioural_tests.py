import numpy as np
import pytest

from data.imaging.preprocess import PixelConfig
from train.evaluation import behavioural_tests
from train.evaluation.behavioural_tests import Ask, Predictions, behaviours
from train.evaluation.lung_mask import two_lungs
from train.metrics.gate_inputs import Behaviour

NAMES = ("normal", "lung_opacity", "bone_normal", "bone_fracture")
SIDE = 48


def asked(labels: np.ndarray, ask: Ask) -> Predictions:
    pixels = np.random.default_rng(0).integers(60, 120, (len(labels), SIDE, SIDE)).astype(np.uint8)
    return Predictions(
        pixels_NHW=pixels,
        labels_N=labels,
        groups=[f"p{i}" for i in range(len(labels))],
        names=NAMES,
        probabilities_NK=ask(pixels),
    )


def from_score(score_N: np.ndarray) -> np.ndarray:
    """Between normal and lung_opacity."""
    chance_N = 1 / (1 + np.exp(-score_N))
    nothing_N = np.zeros(len(score_N))
    return np.stack([1 - chance_N, chance_N, nothing_N, nothing_N], axis=1)


def sees_lungs(pixels_NHW: np.ndarray) -> np.ndarray:
    """The brighter the lungs, the more opacity."""
    return from_score(pixels_NHW[:, two_lungs(SIDE).both_HW > 0.5].mean(axis=1) / 10 - 12)


def by_name(found: list[Behaviour]) -> dict[str, float | None]:
    return {one.name: one.estimate and one.estimate.value for one in found}


def tell(ask: Ask, labels: np.ndarray, *, synthetic: bool = False) -> dict[str, float | None]:
    return by_name(behaviours(ask, asked(labels, ask), PixelConfig(side=SIDE), synthetic=synthetic))


NORMALS = np.array([0] * 40 + [1] * 2)


def test_a_model_that_sees_the_lungs_stays_with_its_label_and_notices_an_opacity() -> None:
    found = tell(sees_lungs, NORMALS)
    for name in (
        "rotation",
        "brightness",
        "border_crop",
        "opacity_raises_opacity",
        "opacity_lowers_normal",
    ):
        assert found[name] == 1.0, name


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("rotation", lambda p: from_score(p[:, :2, :2].mean(axis=(1, 2)) - 60.0)),  # corners turn black
        ("brightness", lambda p: from_score(p.mean(axis=(1, 2)) - 90.0)),
        (
            "border_crop",
            lambda p: from_score(np.abs(np.diff(p.astype(int), axis=2)).mean(axis=(1, 2)) - 19.5),
        ),
        ("opacity_raises_opacity", lambda p: from_score(p[:, -1].mean(axis=1))),
        ("opacity_lowers_normal", lambda p: from_score(-p.mean(axis=(1, 2)) / 100)),
    ],
)
def test_a_model_that_goes_by_something_else_does_not(name: str, model: Ask) -> None:
    share = tell(model, NORMALS)[name]
    assert share is not None
    assert share < 0.9


def test_an_opacity_is_put_into_the_lungs_and_nowhere_else() -> None:
    flat = np.full((96, 96), 80, np.uint8)
    for seed in range(20):
        added = behavioural_tests.with_opacity(flat, np.random.default_rng(seed)).astype(int) - 80
        assert added.min() == 0
        assert 40 < added.max() < 175
        assert added[two_lungs(96).both_HW == 0].max() == 0


def test_a_limb_that_is_taken_for_a_chest_is_counted() -> None:
    labels = np.array([0, 1, 2, 3] * 10)

    def limbs_are_chests(pixels_NHW: np.ndarray) -> np.ndarray:
        return np.eye(4)[np.array([0, 1, 2, 0] * 10)[: len(pixels_NHW)]]

    found = tell(limbs_are_chests, labels)
    assert (found["region"], found["bone_for_chest"]) == (0.75, 0.5)


def test_what_cannot_be_asked_says_why() -> None:
    model = lambda pixels: np.eye(4)[np.full(len(pixels), 1)]  # noqa: E731
    labels = np.full(20, 1)
    normals = behaviours(model, asked(labels - 1, model), PixelConfig(side=SIDE), synthetic=False)
    (opacity,) = [one for one in normals if one.name == "opacity_raises_opacity"]
    assert (opacity.estimate, opacity.why_not) == (None, "no test image is of the class lung_opacity")
    why = {
        one.name: one.why_not
        for one in behaviours(model, asked(labels, model), PixelConfig(side=SIDE), synthetic=False)
        if one.estimate is None
    }
    assert set(why) == {
        "opacity_raises_opacity",
        "opacity_lowers_normal",
        "region",
        "bone_for_chest",
        "textbook",
    }
    assert "a chest without a finding" in why["opacity_lowers_normal"]
    assert "limb" in why["region"]


def test_a_model_of_drawn_images_is_asked_about_new_drawn_patients() -> None:
    """One that calls everything normal knows a class of four."""
    normal = lambda pixels: np.eye(10)[np.zeros(len(pixels), int)]  # noqa: E731
    one = behavioural_tests._textbook(
        normal, ("normal", *"bcdefghij"), PixelConfig(side=SIDE), synthetic=True
    )
    assert one.estimate is not None
    assert (one.estimate.value, one.estimate.images) == (0.1, 100)


def test_the_same_images_are_drawn_each_time_and_no_more_than_asked_for() -> None:
    many = asked(np.array([0, 1] * 300), sees_lungs)
    some = many.some(many.labels_N == 0)
    assert len(some.labels_N) == behavioural_tests.IMAGES
    assert set(some.labels_N) == {0}
    assert some.groups == many.some(many.labels_N == 0).groups
