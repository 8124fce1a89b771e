"""The probes find a shortcut that was put there, and say so when there is nothing to probe."""

import csv
from pathlib import Path

import numpy as np
import pytest

from data.imaging.preprocess import PixelConfig, to_pixels
from data.synthetic.generator import SyntheticConfig, generate
from data.validation.shortcut_probes import Shortcuts, features, shortcuts

CONFIG = PixelConfig(side=96)


def probed(folder: Path, shortcut: float) -> Shortcuts:
    generate(SyntheticConfig(images=240, side=96, shortcut=shortcut), folder)
    with (folder / "manifest.csv").open() as file:
        rows = list(csv.DictReader(file))
    return shortcuts(
        [features(to_pixels((folder / row["path"]).read_bytes(), CONFIG)) for row in rows],
        labels=[row["label"] for row in rows],
        sources=[row["source"] for row in rows],
        groups=[row["patient_id"] for row in rows],
        class_by_source={},
    )


def accuracy(found: Shortcuts, view: str) -> float:
    return next(one.accuracy for one in found.probes if (one.view, one.target) == (view, "label"))


def test_a_marker_that_gives_the_class_away_is_found_at_the_borders(tmp_path: Path) -> None:
    honest, cheating = probed(tmp_path / "a", 0.0), probed(tmp_path / "b", 1.0)
    assert accuracy(cheating, "borders") > accuracy(honest, "borders") + 0.3
    assert accuracy(honest, "borders") < 0.3
    assert all(0 <= one.above_chance <= 1 for one in cheating.probes)


def random_views(number: int) -> list[dict]:  # type: ignore[type-arg]
    random = np.random.default_rng(0)
    return [features(random.integers(0, 255, (64, 64), np.uint8)) for _ in range(number)]


def test_with_one_source_it_says_so_and_probes_the_label() -> None:
    found = shortcuts(random_views(12), list("abababababab"), ["clinic"] * 12, list("abcdefghijkl"), {})
    assert {one.target for one in found.probes} == {"label"}
    assert found.not_evaluable == {"source": "all images have the same one (clinic)"}


def test_noise_gives_nothing_away_and_a_patient_is_never_on_both_sides_of_a_fold() -> None:
    """Each patient has a picture of their own, many times: only who had seen it could name it."""
    views = [one for one in random_views(40) for _ in range(6)]
    labels = [name for n in range(40) for name in ["ab"[n % 2]] * 6]
    found = shortcuts(views, labels, ["s"] * 240, [str(n) for n in range(40) for _ in range(6)], {})
    leaking = shortcuts(views, labels, ["s"] * 240, [str(n) for n in range(240)], {})
    for one, other in zip(found.probes, leaking.probes, strict=True):
        assert one.chance == 0.5
        assert one.accuracy < 0.7
        assert other.accuracy > 0.9


def test_too_few_groups_are_not_probed() -> None:
    found = shortcuts(random_views(8), list("abababab"), list("ststtsst"), list("aabbccdd"), {})
    assert found.probes == ()
    assert set(found.not_evaluable) == {"source", "label"}


@pytest.mark.parametrize(("view", "points"), [("borders", 240), ("thumbnail", 256)])
def test_a_view_has_its_points_and_the_borders_no_more_than_borders(view: str, points: int) -> None:
    dark = np.zeros((96, 96), np.uint8)
    dark[12:-12, 12:-12] = 255
    seen = features(dark)[view]  # type: ignore[index]
    assert seen.shape == (points,)
    assert bool(seen.any()) == (view == "thumbnail")
