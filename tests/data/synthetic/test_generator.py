"""`data.synthetic.generator`: the same seed draws the same bytes, all classes are there, and the knobs do what
they say.
"""

import csv
import hashlib
import io
from collections import Counter
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image

from data.imaging.preprocess import PixelConfig, decode, to_pixels
from data.synthetic.generator import (
    COLUMNS,
    IMAGES_PER_PATIENT,
    Subject,
    SyntheticConfig,
    draw,
    generate,
    sign_of,
    subjects,
)
from data.taxonomy import taxonomy

SMALL = SyntheticConfig(images=40, side=64)
PIXELS = PixelConfig(side=64)


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "manifest.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def one_of(config: SyntheticConfig, label: str, sex: str | None = None) -> Subject:
    return next(
        one for one in subjects(config) if one.patient.label == label and sex in (None, one.patient.sex)
    )


def pixels(config: SyntheticConfig, subject: Subject, seed: int = 0) -> np.ndarray:
    """What the model sees of one image; the same seed gives the same pose, sign and noise."""
    blob, _, _ = draw(config, subject, 1, np.random.default_rng(seed))
    return to_pixels(blob, PIXELS).astype(float)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate(SMALL, tmp_path_factory.mktemp("synthetic"))


def test_the_same_seed_gives_the_same_bytes_whatever_the_number_of_threads(
    folder: Path, tmp_path: Path
) -> None:
    assert bytes_of(generate(SMALL, tmp_path, threads=1)) == bytes_of(folder)


def test_another_seed_gives_other_patients_and_other_bytes(folder: Path, tmp_path: Path) -> None:
    other = rows_of(generate(SyntheticConfig(images=40, side=64, seed=1), tmp_path))
    mine = rows_of(folder)
    for column in ("sha256", "patient_id"):
        assert {row[column] for row in other}.isdisjoint({row[column] for row in mine})


def test_the_manifest_has_its_columns_and_every_row_its_file(folder: Path) -> None:
    rows = rows_of(folder)
    assert tuple(rows[0]) == COLUMNS
    assert len(rows) == SMALL.images
    for row in rows:
        assert hashlib.sha256((folder / row["path"]).read_bytes()).hexdigest() == row["sha256"]
        assert (row["license"], row["synthetic"]) == ("CC0-1.0", "true")
        assert row["source"].startswith("synthetic-")


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


def test_both_file_types_both_monochromes_and_both_matrix_sizes_occur(folder: Path) -> None:
    files = [folder / row["path"] for row in rows_of(folder)]
    assert {path.suffix for path in files} == {".png", ".dcm"}
    photometric = {
        pydicom.dcmread(path, stop_before_pixels=True).PhotometricInterpretation
        for path in files
        if path.suffix == ".dcm"
    }
    assert photometric == {"MONOCHROME1", "MONOCHROME2"}
    assert {decode(path.read_bytes()).height for path in files} == {64, 72}


def test_every_file_says_that_it_is_synthetic(folder: Path) -> None:
    for row in rows_of(folder):
        blob = (folder / row["path"]).read_bytes()
        if row["path"].endswith(".png"):
            with Image.open(io.BytesIO(blob)) as image:
                assert image.info["Description"].startswith("SYNTHETIC")
        else:
            header = pydicom.dcmread(io.BytesIO(blob), stop_before_pixels=True)
            assert str(header.PatientName).startswith("SYNTHETIC^")
            assert header.ImageComments.startswith("SYNTHETIC")


def test_more_noise_makes_neighbouring_pixels_differ_more() -> None:
    subject = one_of(SMALL, "normal")
    quiet, loud = (
        np.abs(np.diff(pixels(SyntheticConfig(side=64, noise=noise), subject))).mean() for noise in (0.0, 5.0)
    )
    assert loud > 1.5 * quiet


def test_drift_changes_the_picture_although_brightness_is_normalised() -> None:
    subject = one_of(SMALL, "normal")
    means = [pixels(SyntheticConfig(side=64, drift=drift), subject).mean() for drift in (0.0, 0.5, 1.0)]
    assert means[0] - means[1] > 5
    assert means[1] - means[2] > 5


def test_bias_weakens_a_sign_in_women_and_not_in_men() -> None:
    def change(sex: str) -> float:
        subject = one_of(SyntheticConfig(images=200, side=64), "tuberculosis", sex)
        plain, biased = (
            pixels(SyntheticConfig(side=64, bias=bias, noise=0.0), subject) for bias in (0.0, 0.9)
        )
        return float(np.abs(plain - biased).mean())

    assert change("M") == 0
    assert change("F") > 1


def test_the_shortcut_puts_the_side_marker_where_the_class_says() -> None:
    def marker_row(subject: Subject, shortcut: float) -> np.ndarray:
        config = SyntheticConfig(side=160, shortcut=shortcut)
        blob, _, _ = draw(config, subject, 1, np.random.default_rng(subject.seed))
        return decode(blob).shown_HW[4].astype(int)

    def place(subject: Subject) -> int:
        """The tenth of the width where the marker appears; -1 when chance had put it there already."""
        difference = marker_row(subject, 1.0) - marker_row(subject, 0.0)
        return int(np.argmax(difference) // 16) if difference.max() > 20 else -1

    people = list(subjects(SyntheticConfig(images=60)))
    for index, label in ((8, "bone_fracture"), (9, "bone_normal")):
        places = {place(one) for one in people if one.patient.label == label}
        assert places <= {index, -1}
        assert index in places


def test_without_a_folder_to_write_there_is_an_error_and_no_manifest(tmp_path: Path) -> None:
    (tmp_path / "images").write_text("in the way")
    with pytest.raises(OSError):
        generate(SMALL, tmp_path)
    assert not (tmp_path / "manifest.csv").exists()


def test_files_of_others_in_the_folder_stay(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    generate(SyntheticConfig(images=10, side=64), tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


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


@pytest.mark.parametrize("label", ["lung_opacity", "tuberculosis", "bone_fracture"])
def test_where_the_sign_lies_is_known_and_is_a_small_part_of_the_image(label: str) -> None:
    config = SyntheticConfig(images=40, side=128, noise=0)
    subject = one_of(config, label)
    (seed,) = subject.seed.spawn(1)
    sign_HW = sign_of(config, subject, seed)
    blob, _, _ = draw(config, subject, 1, np.random.default_rng(seed))
    assert sign_HW.shape == decode(blob).shown_HW.shape
    there_HW = sign_HW > 0.25 * sign_HW.max()
    assert 0.001 < there_HW.mean() < 0.25


def test_a_normal_film_has_no_sign() -> None:
    config = SyntheticConfig(images=40, side=128)
    subject = one_of(config, "normal")
    assert not sign_of(config, subject, subject.seed.spawn(1)[0]).any()
