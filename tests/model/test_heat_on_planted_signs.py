"""Heat lies on the signs that were drawn into synthetic X-rays, and comes from what was learned, not from the image."""

from dataclasses import dataclass

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from scipy.stats import spearmanr

from data.imaging.preprocess import PixelConfig, decode, place, scale, to_model_input
from data.synthetic.generator import SyntheticConfig, draw, sign_of, subjects
from serve.classifier.saliency import HeatConfig, heat

pytestmark = pytest.mark.timeout(1800)  # a minute of one core, which a busy machine may share out over many
PIXELS = PixelConfig(side=64)
LABELS = ("normal", "lung_opacity", "tuberculosis", "covid19", "other_lung")
ARCHITECTURE = {"distilled": False, "embed_dim": [64, 96, 128], "num_heads": [2, 3, 4], "depth": [2, 2, 2]}


@dataclass(frozen=True, kw_only=True)
class Films:
    pixels_NHW: np.ndarray
    labels_N: np.ndarray
    signs_NHW: np.ndarray
    """bool: where the drawn sign is at least a quarter of its strongest."""


def films(images: int, seed: int) -> Films:
    """Synthetic X-rays of some classes as the model sees them, with the places of their signs."""
    config = SyntheticConfig(images=images, seed=seed, side=128)
    pixels, labels, signs = [], [], []
    for subject in subjects(config):
        if subject.patient.label not in LABELS:
            continue
        for number, one in enumerate(subject.seed.spawn(subject.images), start=1):
            blob, _, _ = draw(config, subject, number, np.random.default_rng(one))
            pixels.append(scale(decode(blob).shown_HW, PIXELS))
            labels.append(LABELS.index(subject.patient.label))
            sign_HW = sign_of(config, subject, one)
            top, left, height, width = place(sign_HW.shape, PIXELS.side)
            square = np.zeros((PIXELS.side, PIXELS.side), np.float32)
            small = Image.fromarray(sign_HW).resize((width, height), Image.Resampling.BILINEAR)
            square[top : top + height, left : left + width] = np.asarray(small)
            signs.append(square > 0.25 * max(float(square.max()), 1e-6))
    return Films(pixels_NHW=np.stack(pixels), labels_N=np.array(labels), signs_NHW=np.stack(signs))


def fresh() -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: torch.nn.Module = timm.create_model(
            "levit_128s", in_chans=1, num_classes=len(LABELS), img_size=PIXELS.side, **ARCHITECTURE
        )
    return model


@pytest.fixture(scope="module")
def trained() -> torch.nn.Module:
    """A small LeViT that has learned the classes within a minute of one core."""
    seen, epochs = films(2400, seed=0), 12
    model = fresh().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05)
    steps = epochs * (len(seen.labels_N) // 32)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, steps, pct_start=0.1)
    rng = np.random.default_rng(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for _ in range(epochs):
            for batch in np.array_split(rng.permutation(len(seen.labels_N)), steps // epochs):
                x_NCHW = torch.from_numpy(to_model_input(seen.pixels_NHW[batch], PIXELS))
                shift = tuple(int(one) for one in rng.integers(-3, 4, 2))
                logits_NC = model(torch.roll(x_NCHW, shift, (2, 3)) * float(rng.uniform(0.85, 1.15)))
                loss = torch.nn.functional.cross_entropy(logits_NC, torch.from_numpy(seen.labels_N[batch]))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                if schedule.last_epoch < steps:
                    schedule.step()
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def unseen() -> Films:
    return films(200, seed=7)


def heat_of(model: torch.nn.Module, unseen: Films, nth: int) -> np.ndarray:
    return heat(model, unseen.pixels_NHW[nth], int(unseen.labels_N[nth]), PIXELS, HeatConfig())


def recognised(model: torch.nn.Module, unseen: Films) -> list[int]:
    """Films with a sign that the model gets right."""
    with torch.inference_mode():
        told_N = model(torch.from_numpy(to_model_input(unseen.pixels_NHW, PIXELS))).argmax(1).numpy()
    right_N = (told_N == unseen.labels_N) & (unseen.labels_N > 0)
    assert right_N.sum() / (unseen.labels_N > 0).sum() > 0.7, "the model has not learned enough to be asked"
    return [int(nth) for nth in np.flatnonzero(right_N)]


def agreement(heats: list[np.ndarray], signs: list[np.ndarray]) -> tuple[float, float]:
    """How often the hottest place lies in the box of the sign, and how many times denser the heat is on the sign."""
    hits, ratios = [], []
    for heat_HW, sign_HW in zip(heats, signs, strict=True):
        rows, columns = np.nonzero(sign_HW)
        top = np.unravel_index(int(heat_HW.argmax()), heat_HW.shape)
        hits.append(rows.min() <= top[0] <= rows.max() and columns.min() <= top[1] <= columns.max())
        ratios.append(float(heat_HW[sign_HW].sum() / heat_HW.sum() / sign_HW.mean()))
    return float(np.mean(hits)), float(np.mean(ratios))


def test_heat_agrees_with_planted_signs_far_better_than_chance(
    trained: torch.nn.Module, unseen: Films
) -> None:
    chosen = recognised(trained, unseen)
    signs = [unseen.signs_NHW[nth] for nth in chosen]
    pointing, ratio = agreement([heat_of(trained, unseen, nth) for nth in chosen], signs)
    shuffled, level = agreement([heat_of(trained, unseen, nth) for nth in chosen], signs[1:] + signs[:1])
    print(
        f"{len(chosen)} films: pointing {pointing:.2f}, density {ratio:.1f}; others' {shuffled:.2f}, {level:.1f}"
    )
    assert pointing > 0.6
    assert ratio > 4
    assert ratio > 1.5 * level


def test_weights_drawn_at_random_give_another_map(trained: torch.nn.Module, unseen: Films) -> None:
    """The sanity check of Adebayo et al. (arXiv:1810.03292): a map that outlives its weights explains nothing."""
    chosen = recognised(trained, unseen)[:30]
    learned = [heat_of(trained, unseen, nth) for nth in chosen]
    untrained = fresh().eval().requires_grad_(False)
    random = [heat_of(untrained, unseen, nth) for nth in chosen]
    correlation = np.mean([spearmanr(a.ravel(), b.ravel())[0] for a, b in zip(learned, random, strict=True)])
    pointing, _ = agreement(random, [unseen.signs_NHW[nth] for nth in chosen])
    print(f"rank correlation {correlation:.2f}, pointing of random weights {pointing:.2f}")
    assert abs(correlation) < 0.35
    assert max(float(one.max()) for one in random) < 0.5  # and says that it is sure of little
