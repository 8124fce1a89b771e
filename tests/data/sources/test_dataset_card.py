"""The cards of the data sets."""

from pathlib import Path

import pytest

from data.sources import registry
from data.sources.dataset_card import Card, Download

ROOT = Path(__file__).resolve().parents[3]


NAMES = tuple(registry.SOURCES)


PUBLISHED = tuple(name for name in NAMES if registry.SOURCES[name].CARD.downloads)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_card_maps_its_labels_onto_classes_and_tells_its_terms(name: str) -> None:
    card = registry.SOURCES[name].CARD
    assert all(card.class_of(label) for label in card.labels)
    told = "\n".join(card.summary())
    assert all(part in told for part in (card.title, card.license, card.citation, card.homepage))


def test_an_address_without_encryption_and_a_name_with_a_path_are_refused_in_a_card() -> None:
    with pytest.raises(ValueError, match="no https"):
        Download(url="http://example.org/x.zip", page="", file_name="x.zip", access="open")
    with pytest.raises(ValueError, match="plain name"):
        Download(url="https://example.org/x.zip", page="", file_name="../x.zip", access="open")


def test_the_docs_have_every_card_as_it_is() -> None:
    text = " ".join((ROOT / "docs/data.md").read_text().split())

    def missing(card: Card) -> list[str]:
        mapped = [f"`{label}` → `{name}`" for label, name in card.labels.items()]
        facts = (card.title, card.license, card.conditions, card.citation, card.homepage)
        told = (*facts, *mapped)
        return [one for one in told if " ".join(one.split()) not in text]

    assert {name: gone for name in NAMES if (gone := missing(registry.SOURCES[name].CARD))} == {}
