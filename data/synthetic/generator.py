"""The built-in source: a folder of synthetic X-rays with a manifest, from a seed, read like any other.

The demo and the tests run on it. It is labelled synthetic everywhere (source, manifest, file metadata,
burned-in mark) and can be made worse on purpose: noise, drift, bias and shortcut are knobs.
"""

import csv
import hashlib
import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from cluster.progress import OnProgress, silent
from data.synthetic.draw import DRAWN_LABELS, Patient, chest, limb
from data.synthetic.files import SITES, Header, Site, burn_in, dicom, expose, png
from data.taxonomy import taxonomy

COLUMNS = ("path", "label", "source", "patient_id", "sex", "age", "view", "license", "sha256", "synthetic")
IMAGES_PER_PATIENT = (1, 1, 1, 2)
"""Mostly one: a gate asks for images of enough patients, and these are what the test split has fewest of."""
DRAWN = 0.5
"""The anatomy is drawn this much smaller and enlarged, soft as behind a scintillator; it is what takes the time."""
STREAM = 0x5D47
"""First word of every seed sequence here, so that no other use of the same seed shares its numbers."""


@dataclass(frozen=True, kw_only=True)
class SyntheticConfig:
    """What to draw; the same values give the same bytes."""

    seed: int = 0
    """Another seed gives other patients."""
    images: int = 2000
    """How many images in all; each class gets a tenth of them."""
    side: int = 256
    """Width of the images, pixels; site b's are an eighth taller."""
    noise: float = 1.0
    """Multiplies each detector's quantum noise."""
    drift: float = 0.0
    """0..1: how far exposure and contrast have wandered from what the model was trained on."""
    bias: float = 0.0
    """0..1: by how much every sign is weaker in women."""
    shortcut: float = 0.0
    """0..1: share of images in which the place of the side marker gives the class away."""

    def __post_init__(self) -> None:
        if self.images < len(taxonomy().names):
            raise ValueError(f"images must be at least one for each class, got {self.images}")
        if self.side < 64:
            raise ValueError(f"side must be at least 64 pixels, got {self.side}")
        if self.seed < 0 or self.noise < 0:
            raise ValueError(f"seed and noise must not be negative, got {self.seed} and {self.noise}")
        for name in ("drift", "bias", "shortcut"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be within 0..1, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One invented patient and how many images there are of them."""

    patient_id: str
    patient: Patient
    site: Site
    images: int
    seed: np.random.SeedSequence


def generate(
    config: SyntheticConfig,
    directory: Path,
    progress: OnProgress = silent,
    *,
    threads: int = 2,
) -> Path:
    """Write the images and, last, `manifest.csv`.

    Args:
        directory: created if needed; files of the same names are replaced, others stay.
        threads: how many draw at a time; the files do not depend on it.
    Returns:
        the directory.
    Raises:
        OSError: the directory cannot be written; there is no manifest then.
        ValueError: this site's taxonomy has a class that cannot be drawn.
    """
    if strange := sorted(set(taxonomy().names) - DRAWN_LABELS):
        raise ValueError(
            f"the built-in generator cannot draw {', '.join(strange)}, which this site's taxonomy has: give --source "
            "a folder or a dataset of yours"
        )
    manifest = directory / "manifest.csv"
    for site in SITES:
        (directory / "images" / site.name).mkdir(parents=True, exist_ok=True)
    manifest.unlink(missing_ok=True)
    rows: list[dict[str, str]] = []
    with ThreadPoolExecutor(threads) as pool:
        for written in pool.map(lambda subject: _write_subject(config, subject, directory), subjects(config)):
            rows += written
            progress(len(rows), config.images, "synthetic X-rays drawn")
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    draft = manifest.with_suffix(".csv.part")
    draft.write_text(text.getvalue(), encoding="utf-8")
    draft.replace(manifest)
    return directory


def subjects(config: SyntheticConfig) -> Iterator[Subject]:
    """Yield the patients, class after class; each class gets its tenth of the images."""
    names = taxonomy().names
    number = 0
    for index, label in enumerate(names):
        left = config.images // len(names) + (index < config.images % len(names))
        while left:
            seed = np.random.SeedSequence((STREAM, config.seed, number))
            build, images_seed, own = seed.spawn(3)
            rng = np.random.default_rng(own)
            images = min(left, int(rng.choice(IMAGES_PER_PATIENT)))
            patient = Patient(
                label=label,
                sex="F" if rng.random() < 0.5 else "M",
                age=int(np.clip(rng.normal(52, 19), 18, 95)),
                build=build,
            )
            yield Subject(
                patient_id=f"synthetic-{config.seed}-{number:05d}",
                patient=patient,
                site=SITES[int(rng.integers(len(SITES)))],
                images=images,
                seed=images_seed,
            )
            left -= images
            number += 1


def _write_subject(config: SyntheticConfig, subject: Subject, directory: Path) -> list[dict[str, str]]:
    rows = []
    for number, seed in enumerate(subject.seed.spawn(subject.images), start=1):
        blob, suffix, view = draw(config, subject, number, np.random.default_rng(seed))
        path = Path("images", subject.site.name, f"{subject.patient_id}-{number}.{suffix}")
        (directory / path).write_bytes(blob)
        rows.append(
            {
                "path": path.as_posix(),
                "label": subject.patient.label,
                "source": subject.site.name,
                "patient_id": subject.patient_id,
                "sex": subject.patient.sex,
                "age": str(subject.patient.age),
                "view": view,
                "license": "CC0-1.0",
                "sha256": hashlib.sha256(blob).hexdigest(),
                "synthetic": "true",
            }
        )
    return rows


def draw(
    config: SyntheticConfig, subject: Subject, number: int, rng: np.random.Generator
) -> tuple[bytes, str, str]:
    """Draw one image as a file; return its bytes, its suffix and the view."""
    patient, site = subject.patient, subject.site
    strength = 1 - config.bias if patient.sex == "F" else 1.0
    drawing_HW, view = _drawing(config, subject, rng, strength)
    grey_HW = expose(rng, drawing_HW, site, config.noise, config.drift)
    names = taxonomy().names
    slot, telling = int(rng.integers(len(names))), rng.random() < config.shortcut
    burn_in(grey_HW, names.index(patient.label) if telling else slot, len(names))
    if rng.random() >= site.dicom_share:
        return png(grey_HW, site), "png", view
    header = Header(
        patient_id=subject.patient_id,
        sex=patient.sex,
        age=patient.age,
        view=view,
        region=taxonomy()[patient.label].region,
        number=number,
    )
    return dicom(rng, grey_HW, site, header), "dcm", view


def sign_of(config: SyntheticConfig, subject: Subject, seed: np.random.SeedSequence) -> np.ndarray:
    """Return the density that the disease's sign adds to the image that `draw` makes from this seed.

    The same drawing without its sign, subtracted: the numbers drawn at random do not depend on the strength.

    Returns:
        sign_HW: float32, the size of the file's image, 0 where the anatomy alone is seen.
    """
    with_HW, _ = _drawing(config, subject, np.random.default_rng(seed), 1.0)
    without_HW, _ = _drawing(config, subject, np.random.default_rng(seed), 0.0)
    return np.abs(with_HW - without_HW)


def _drawing(
    config: SyntheticConfig, subject: Subject, rng: np.random.Generator, strength: float
) -> tuple[np.ndarray, str]:
    """Draw the attenuation that a detector would see, float32 at the file's size; return it and the view."""
    patient, site = subject.patient, subject.site
    shape = (round(config.side * site.aspect * DRAWN), round(config.side * DRAWN))
    region = taxonomy()[patient.label].region
    view = "AP" if region == "limb" or rng.random() < 0.35 else "PA"
    drawing_HW = (
        chest(rng, shape, patient, view, strength)
        if region == "chest"
        else limb(rng, shape, patient, strength)
    )
    size = (config.side, round(config.side * site.aspect))
    return np.asarray(Image.fromarray(drawing_HW).resize(size, Image.Resampling.BILINEAR)), view
