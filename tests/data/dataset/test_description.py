"""What a version's name and its fingerprint of inputs follow from."""

from dataclasses import replace

from data.catalog.quarantine_review import Reviewed
from data.dataset.description import fingerprint, recipe
from data.imaging.preprocess import PixelConfig
from data.taxonomy import taxonomy

KEY = bytes(range(32))
REVIEWED = Reviewed(samples=[], waived={}, rejected=0)


def test_the_recipe_has_pixels_classes_and_split() -> None:
    settings = recipe(PixelConfig(side=64), seed=3)
    assert settings["pixels"]["side"] == 64
    assert settings["classes"] == list(taxonomy().names)
    assert (settings["split"]["seed"], sum(settings["split"]["shares"].values())) == (3, 1.0)


def test_every_input_changes_the_fingerprint() -> None:
    settings = recipe(PixelConfig(), seed=0)
    others = {("s", "f"): (("p", "g"),)}
    prints = [
        fingerprint(settings, KEY, REVIEWED, {}),
        fingerprint(recipe(PixelConfig(), seed=1), KEY, REVIEWED, {}),
        fingerprint(settings, KEY[::-1], REVIEWED, {}),
        fingerprint(settings, KEY, replace(REVIEWED, rejected=1), {}),
        fingerprint(settings, KEY, replace(REVIEWED, waived={("s", "f"): ("blank",)}), {}),
        fingerprint(settings, KEY, REVIEWED, others),
    ]
    assert len(set(prints)) == 6
    assert {len(text) for text in prints} == {32}
    assert prints[0] == fingerprint(settings, KEY, REVIEWED, {})
