import numpy as np

from train.evaluation.behavioural_tests import Ask, Predictions
from train.evaluation.lung_mask import chest_box
from train.evaluation.shortcut_audit import audit, painted, probes

NAMES = ("normal", "tuberculosis", "bone_normal")
SIDE = 50


def pictures(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Tuberculosis has its sign in a lung, and a mark in a corner."""
    labels = np.arange(count) % 2
    pixels = np.random.default_rng(0).integers(80, 100, (count, SIDE, SIDE)).astype(np.uint8)
    pixels[labels == 1, 20:26, 12:18] = 250
    pixels[labels == 1, :3, :3] = 250
    return pixels, labels


def sees_the_sign(pixels_NHW: np.ndarray) -> np.ndarray:
    return np.eye(3)[(pixels_NHW[:, 20:26, 12:18].mean(axis=(1, 2)) > 200).astype(int)]


def sees_the_mark(pixels_NHW: np.ndarray) -> np.ndarray:
    return np.eye(3)[(pixels_NHW[:, :3, :3].mean(axis=(1, 2)) > 200).astype(int)]


def audited(ask: Ask, count: int = 80, answers: np.ndarray | None = None) -> Predictions:
    pixels, labels = pictures(count)
    return Predictions(
        pixels_NHW=pixels,
        labels_N=labels,
        groups=[f"p{i // 2}" for i in range(count)],
        names=NAMES,
        probabilities_NK=ask(pixels) if answers is None else answers,
    )


def test_a_model_that_sees_the_sign_is_left_with_nothing() -> None:
    for one in audit(sees_the_sign, audited(sees_the_sign)):
        assert one.left is not None
        assert (one.full, one.masked, one.chance, one.left.value) == (1.0, 0.5, 0.5, 0.0)


def test_a_model_that_sees_the_mark_is_left_with_all() -> None:
    for one in audit(sees_the_mark, audited(sees_the_mark)):
        assert one.left is not None
        assert (one.masked, one.left.value, one.left.low, one.images) == (1.0, 1.0, 1.0, 80)


def test_a_model_that_has_learned_nothing_is_not_audited() -> None:
    nothing = lambda pixels: np.eye(3)[np.zeros(len(pixels), int)]  # noqa: E731
    for one in audit(nothing, audited(nothing)):
        assert one.left is None
        assert "0.50 of these films where chance is 0.50" in one.why_not


def test_too_few_films_of_a_class_are_not_audited() -> None:
    for one in audit(sees_the_sign, audited(sees_the_sign, count=18)):
        assert one.left is None
        assert "fewer than two chest classes" in one.why_not


def test_what_is_painted_over_is_even_and_the_rest_untouched() -> None:
    pixels, _ = pictures(2)
    inside = chest_box(SIDE)
    masked = painted(pixels, inside)
    assert {len(np.unique(one[inside])) for one in masked} == {1}
    assert np.array_equal(masked[:, ~inside], pixels[:, ~inside])
    assert masked[0][inside][0] == round(pixels[0][~inside].mean())


def test_the_images_are_probed_for_label_and_source() -> None:
    asked = audited(sees_the_mark)
    found = probes(asked, ["a" if nth % 4 else "b" for nth in range(80)])
    label = next(one for one in found.probes if (one.view, one.target) == ("borders", "label"))
    assert label.accuracy > 0.95
    assert {one.target for one in found.probes} == {"label", "source"}
