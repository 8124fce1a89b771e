"""Copies are found through what people do to pictures; two patients who look alike stay two."""

import csv
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from data.dataset import near_duplicates as search
from data.dataset.near_duplicates import fingerprint, near_duplicates
from data.imaging.preprocess import PixelConfig, decode, scale, to_pixels
from data.synthetic.generator import SyntheticConfig, generate

ROOT = Path(__file__).resolve().parents[3]
XRAYS = ROOT.parent / "shared" / "data" / "xrays"
CONFIG = PixelConfig(side=96)


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> list[np.ndarray]:
    """Drawn X-rays of 36 patients, as shown."""
    folder = generate(SyntheticConfig(images=48, side=192), tmp_path_factory.mktemp("films"))
    with (folder / "manifest.csv").open() as file:
        first = {row["patient_id"]: row["path"] for row in csv.DictReader(file)}
    return [decode((folder / path).read_bytes()).shown_HW for path in first.values()]


def resized(film: np.ndarray, height: int, width: int) -> np.ndarray:
    return np.asarray(Image.fromarray(film).resize((width, height)))


def recompressed(film: np.ndarray) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(film).save(buffer, "jpeg", quality=30)
    return np.asarray(Image.open(buffer))


def in_16_bits(film: np.ndarray) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(film.astype(np.uint16) * 13 + 700).save(buffer, "png")
    return decode(buffer.getvalue()).shown_HW


def marked(film: np.ndarray) -> np.ndarray:
    image = Image.fromarray(film)
    side = film.shape[1] // 14
    ImageDraw.Draw(image).rectangle((2 * side, side, 3 * side, 2 * side), fill=255)
    return np.asarray(image)


def cropped(film: np.ndarray, share: float) -> np.ndarray:
    rows, columns = (round(share * length) for length in film.shape)
    return film[rows : len(film) - rows, columns : film.shape[1] - columns]


COPIES: dict[str, tuple[Callable[[np.ndarray], np.ndarray], float]] = {
    "half the size": (lambda film: resized(film, film.shape[0] // 2, film.shape[1] // 2), 0.95),
    "squeezed to a square": (lambda film: resized(film, 224, 224), 0.95),
    "jpeg at quality 30": (recompressed, 0.95),
    "16 bits": (in_16_bits, 1.0),
    "darker and flatter": (lambda film: (film * 0.6 + 20).astype(np.uint8), 0.95),
    "a marker": (marked, 0.9),
    "1 % cropped off each side": (lambda film: cropped(film, 0.01), 0.9),
    "3 % cropped off each side": (lambda film: cropped(film, 0.03), 0.85),
    "a white frame": (lambda film: np.pad(film, 12, constant_values=255), 0.6),
    "a black frame": (lambda film: np.pad(film, 12, constant_values=0), 0.6),
}
"""The copy, and the share of copies that must be found; drawn films have less detail than real ones."""


@pytest.mark.parametrize("name", COPIES)
def test_a_copy_is_found_and_no_other_patient(films: list[np.ndarray], name: str) -> None:
    change, share = COPIES[name]
    prints = [fingerprint(scale(film, CONFIG)) for film in films]
    prints += [fingerprint(scale(change(film), CONFIG)) for film in films]
    pairs = near_duplicates(prints, [str(n) for n in range(len(prints))])
    found = {one for one, other in pairs if other - one == len(films)}
    assert len(found) >= share * len(films)
    assert all((other - one) % len(films) == 0 for one, other in pairs)


def test_nothing_is_joined_where_nothing_is_a_copy(films: list[np.ndarray]) -> None:
    prints = [fingerprint(scale(film, CONFIG)) for film in films]
    assert near_duplicates(prints, [str(n) for n in range(len(prints))]) == []
    assert near_duplicates(prints[:1], ["a"]) == near_duplicates([], []) == []


def test_a_looser_check_would_join_patients(films: list[np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    """The gate can fail: what keeps patients apart is the threshold, not the search."""
    monkeypatch.setattr(search, "ALIKE_PERCENT", 30)
    monkeypatch.setattr(search, "WORTH_A_LOOK_PERCENT", 30)
    monkeypatch.setattr(search, "BITS_APART", 110)
    prints = [fingerprint(scale(film, CONFIG)) for film in films]
    assert len(near_duplicates(prints, [str(n) for n in range(len(prints))])) > 10


def test_pairs_of_one_group_are_left_out_and_the_order_does_not_matter(films: list[np.ndarray]) -> None:
    prints = [fingerprint(scale(film, CONFIG)) for film in [*films[:8], *map(recompressed, films[:8])]]
    groups = [str(n) for n in range(16)]
    pairs = near_duplicates(prints, groups)
    assert pairs == [(n, n + 8) for n in range(8)]
    assert near_duplicates(prints, [str(n % 8) for n in range(16)]) == []
    order = np.random.default_rng(0).permutation(16)
    shuffled = near_duplicates([prints[n] for n in order], [groups[n] for n in order])
    assert {tuple(sorted((int(order[a]), int(order[b])))) for a, b in shuffled} == set(pairs)


def test_flat_pictures_are_no_copies_of_each_other() -> None:
    flat = [fingerprint(np.full((96, 96), level, np.uint8)) for level in (0, 0, 90)]
    assert near_duplicates(flat, ["a", "b", "c"]) == []


def test_many_copies_of_one_picture_are_all_tied(
    films: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than a band is compared with: they hang together through the first ones."""
    monkeypatch.setattr(search, "LONGEST_MATCH", 5)
    prints = [fingerprint(scale(films[0], CONFIG))] * 40
    tied = {0}
    for one, other in near_duplicates(prints, [str(n) for n in range(40)]):
        tied |= {one, other} if tied & {one, other} else set()
    assert tied == set(range(40))


@pytest.mark.skipif(not XRAYS.exists(), reason="the real X-rays are not here")
def test_on_real_films_copies_are_found_and_patients_stay_apart() -> None:
    with (XRAYS / "manifest.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["source"] in ("kermany", "fracture_multi_region")]
    prints = [fingerprint(to_pixels((XRAYS / row["path"]).read_bytes(), CONFIG)) for row in rows]
    pairs = near_duplicates(prints, [row["path"] for row in rows])
    assert len(pairs) >= 80
    assert all(rows[one]["group_id"] == rows[other]["group_id"] for one, other in pairs)
