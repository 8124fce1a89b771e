"""Behavioural tests of a model: the same picture slightly changed, a sign added, the simplest cases.

Three kinds (Ribeiro et al. 2020, CheckList): invariance – the label stays; direction – a probability moves the way it
must; minimum functionality – cases without difficulty. The model is a function from canonical pixels to calibrated
probabilities; `train.evaluation.rejection_tests` tests what is refused before a model sees it. Thresholds are gates.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance

from data.imaging.preprocess import PixelConfig, to_pixels
from data.synthetic.findings import chest_sign
from data.synthetic.generator import SyntheticConfig, draw, subjects
from data.taxonomy import taxonomy
from train.evaluation.lung_mask import plane, two_lungs
from train.metrics.bootstrap import Estimate, Resampling, share
from train.metrics.gate_inputs import Behaviour

Ask = Callable[[np.ndarray], np.ndarray]
"""pixels_NHW, uint8 → probabilities_NK, calibrated."""

IMAGES = 300
"""Largest number of test images for each test: more would change an interval by little."""
ROTATION_DEGREES = 3.0
BRIGHTNESS = 0.1
"""As a share, up for one half of the images and down for the other."""
CROP = 0.03
"""Share of the side that is cut off all round; the rest is enlarged."""
OPACITY = "lung_opacity"
TEXTBOOK_SEED, TEXTBOOK_IMAGES = 730_001, 100
"""Of drawn patients that no recipe draws; a tenth for each class."""


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """The test images with the model's probabilities."""

    pixels_NHW: np.ndarray
    labels_N: np.ndarray
    groups: Sequence[str]
    names: Sequence[str]
    """Classes, in the order of the model's outputs."""
    probabilities_NK: np.ndarray

    def only(self, chosen_N: np.ndarray) -> "Predictions":
        return Predictions(
            pixels_NHW=self.pixels_NHW[chosen_N],
            labels_N=self.labels_N[chosen_N],
            groups=[self.groups[nth] for nth in chosen_N],
            names=self.names,
            probabilities_NK=self.probabilities_NK[chosen_N],
        )

    def some(self, among_N: np.ndarray, most: int = IMAGES) -> "Predictions":
        """Draw at most so many of the images where `among_N` is true, from a fixed seed."""
        chosen = np.flatnonzero(among_N)
        return self.only(np.sort(np.random.default_rng(0).permutation(chosen)[:most]))

    def share(self, hits_N: np.ndarray) -> Estimate:
        return share(hits_N, self.groups)


def behaviours(
    ask: Ask, predictions: Predictions, pixels: PixelConfig, *, synthetic: bool
) -> list[Behaviour]:
    """Run all tests of the model.

    Args:
        synthetic: whether the model was trained on drawn images; only then it must recognise drawn ones.
    """
    return [
        *_invariance(ask, predictions),
        *_direction(ask, predictions),
        *_regions(predictions),
        _textbook(ask, predictions.names, pixels, synthetic=synthetic),
    ]


def rotated(pixels_HW: np.ndarray, sign: int) -> np.ndarray:
    turned = Image.fromarray(pixels_HW).rotate(sign * ROTATION_DEGREES, Image.Resampling.BILINEAR)
    return np.asarray(turned)


def brightened(pixels_HW: np.ndarray, sign: int) -> np.ndarray:
    return np.asarray(ImageEnhance.Brightness(Image.fromarray(pixels_HW)).enhance(1 + sign * BRIGHTNESS))


def cropped(pixels_HW: np.ndarray, sign: int) -> np.ndarray:
    """Cut off the border; both signs alike."""
    height, width = pixels_HW.shape
    box = (width * CROP, height * CROP, width * (1 - CROP), height * (1 - CROP))
    image = Image.fromarray(pixels_HW)
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR, box=box))


CHANGES: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "rotation": rotated,
    "brightness": brightened,
    "border_crop": cropped,
}
"""Changes that keep the diagnosis; the sign alternates from image to image."""


def with_opacity(pixels_HW: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add a round shadow to one lung, as `data.synthetic.findings` draws the class `lung_opacity`."""
    side = len(pixels_HW)
    density_HW = chest_sign(OPACITY, rng, plane(side), two_lungs(side), 1.0)
    return np.clip(pixels_HW + 255 * density_HW, 0, 255).astype(np.uint8)


def _invariance(ask: Ask, predictions: Predictions) -> Iterator[Behaviour]:
    some = predictions.some(np.ones(len(predictions.labels_N), bool))
    before_N = some.probabilities_NK.argmax(axis=1)
    for name, change in CHANGES.items():
        changed = np.stack(
            [change(image_HW, 1 if nth % 2 else -1) for nth, image_HW in enumerate(some.pixels_NHW)]
        )
        yield Behaviour(name=name, estimate=some.share(ask(changed).argmax(axis=1) == before_N))


def _direction(ask: Ask, predictions: Predictions) -> Iterator[Behaviour]:
    """Test that an added opacity raises the probability of an opacity, and lowers that of a normal chest.

    A model trained without opacities need not know what one is.
    """
    healthy_K = np.array([_is_healthy(name) for name in predictions.names])
    opacity_K = np.array([name == OPACITY for name in predictions.names])
    rises, falls = "opacity_raises_opacity", "opacity_lowers_normal"
    if not healthy_K[predictions.labels_N].any():
        for name in (rises, falls):
            yield Behaviour(name=name, estimate=None, why_not="no test image is of a chest without a finding")
        return
    some = predictions.some(healthy_K[predictions.labels_N])
    rng = np.random.default_rng(0)
    after_NK = ask(np.stack([with_opacity(image_HW, rng) for image_HW in some.pixels_NHW]))
    moved_NK = after_NK - some.probabilities_NK
    if opacity_K[predictions.labels_N].any():
        yield Behaviour(name=rises, estimate=some.share(moved_NK[:, opacity_K].sum(axis=1) > 0))
    else:
        yield Behaviour(name=rises, estimate=None, why_not=f"no test image is of the class {OPACITY}")
    yield Behaviour(name=falls, estimate=some.share(moved_NK[:, healthy_K].sum(axis=1) < 0))


def _is_healthy(name: str) -> bool:
    """Return True for a chest class without a finding."""
    return taxonomy()[name].region == "chest" and not taxonomy()[name].finding


def _regions(predictions: Predictions) -> Iterator[Behaviour]:
    """Test that chests are told from limbs; above all that a bone is not taken for a chest."""
    limb_K = np.array([taxonomy()[name].region == "limb" for name in predictions.names])
    limb_N = limb_K[predictions.labels_N]
    answered_N = limb_K[predictions.probabilities_NK.argmax(axis=1)]
    resampling = Resampling(predictions.groups)
    if limb_N.all() or not limb_N.any():
        why = f"the test split has no image of a {'chest' if limb_N.all() else 'limb'}"
        yield Behaviour(name="region", estimate=None, why_not=why)
        yield Behaviour(name="bone_for_chest", estimate=None, why_not=why)
        return
    yield Behaviour(name="region", estimate=resampling.share(answered_N == limb_N))
    yield Behaviour(name="bone_for_chest", estimate=resampling.share(answered_N, limb_N))


def _textbook(ask: Ask, names: Sequence[str], pixels: PixelConfig, *, synthetic: bool) -> Behaviour:
    """Test drawn patients of every class outside every recipe: the minimum of a model of drawn images."""
    if not synthetic:
        why = "the model was not trained on drawn images, and there are no others that everybody may have"
        return Behaviour(name="textbook", estimate=None, why_not=why)
    config = SyntheticConfig(seed=TEXTBOOK_SEED, images=TEXTBOOK_IMAGES)
    drawn, labels = [], []
    for subject in subjects(config):
        for number, seed in enumerate(subject.seed.spawn(subject.images), start=1):
            blob, _, _ = draw(config, subject, number, np.random.default_rng(seed))
            drawn.append(to_pixels(blob, pixels))
            labels.append(subject.patient.label)
    answers = [names[k] for k in ask(np.stack(drawn)).argmax(axis=1)]
    right_N = np.array([answer == label for answer, label in zip(answers, labels, strict=True)])
    return Behaviour(name="textbook", estimate=share(right_N, [str(nth) for nth in range(len(right_N))]))
