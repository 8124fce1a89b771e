"""A version grew from the newest one with the same settings and no foreign source."""

from typing import Any

from data.dataset.lineage import parents


def version(name: str, *sources: str, seed: int = 0) -> dict[str, Any]:
    return {
        "version": name,
        "settings": {"seed": seed, "classes": ["a"]},
        "sources": dict.fromkeys(sources, 1),
    }


NOW = version("now", "clinic", "hospital")


def test_the_newest_of_the_same_settings_and_sources_is_the_parent() -> None:
    earlier = [version("newer", "clinic"), version("older", "clinic", "hospital")]
    assert parents(NOW, earlier) == ["newer"]


def test_other_settings_and_foreign_sources_are_no_parents() -> None:
    strangers = [version("other seed", "clinic", seed=1), version("other source", "clinic", "university")]
    assert parents(NOW, strangers) == []
    assert parents(NOW, [*strangers, version("older", "hospital")]) == ["older"]


def test_a_version_is_not_its_own_parent_and_settings_are_compared_as_they_are_stored() -> None:
    made = {**NOW, "settings": {"classes": ("a",), "seed": 0}}
    assert parents(made, [NOW]) == []
    assert parents(made, [version("older", "clinic")]) == ["older"]


def test_a_version_of_which_all_was_forgotten_is_no_parent() -> None:
    assert parents(NOW, [version("emptied"), version("older", "clinic")]) == ["older"]
    assert parents(NOW, [version("emptied")]) == []
