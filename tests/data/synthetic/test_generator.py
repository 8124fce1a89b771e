"""`data.synthetic.generator`: the same seed draws the same bytes, all classes are there, and the knobs do what
they say.
"""

from collections import Counter
from pathlib import Path

import pytest

from data.synthetic.generator import (
    IMAGES_PER_PATIENT,
    SyntheticConfig,
    generate,
    subjects,
)
from data.taxonomy import taxonomy
from tests.data.synthetic.drawn import SMALL, rows_of


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_same_seed_gives_the_same_bytes_whatever_the_number_of_threads(
    folder: Path, tmp_path: Path
) -> None:
    assert bytes_of(generate(SMALL, tmp_path, threads=1)) == bytes_of(folder)


def test_another_seed_gives_other_patients_and_other_bytes(folder: Path, tmp_path: Path) -> None:
    other = rows_of(generate(SyntheticConfig(images=40, side=64, seed=1), tmp_path))
    mine = rows_of(folder)
    for column in ("sha256", "patient_id"):
        assert {row[column] for row in other}.isdisjoint({row[column] for row in mine})


def test_all_classes_are_there_and_guessing_the_commonest_is_right_for_one_in_ten(folder: Path) -> None:
    counts = Counter(row["label"] for row in rows_of(folder))
    assert set(counts) == set(taxonomy().names)
    assert max(counts.values()) / SMALL.images <= 0.2


def test_patients_have_one_or_more_images_of_one_site_sex_age_and_label() -> None:
    people = list(subjects(SyntheticConfig(images=300)))
    assert {one.images for one in people} == set(IMAGES_PER_PATIENT)
    assert {one.site.name for one in people} == {"synthetic-a", "synthetic-b"}
    assert {one.patient.sex for one in people} == {"F", "M"}
    assert sum(one.images for one in people) == 300
    assert len({one.patient_id for one in people}) == len(people)


def test_progress_counts_up_to_all_images(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    generate(
        SyntheticConfig(images=20, side=64), tmp_path, lambda done, total, note: seen.append((done, total))
    )
    assert seen[-1] == (20, 20)
    assert seen == sorted(seen)


@pytest.mark.parametrize(
    "change", [{"images": 9}, {"side": 32}, {"bias": 1.5}, {"drift": -0.1}, {"seed": -1}]
)
def test_impossible_settings_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(ValueError):
        SyntheticConfig(**change)
