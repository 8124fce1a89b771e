"""The sources by name: what `python -m jobs.ingest --source NAME` knows.

An adapter is a module with a card and a function that lists a folder; one more is one more file and one line here.
"""

from pathlib import Path
from typing import Protocol

from data.sources import (
    bone_fracture,
    class_folders,
    covid_qu_ex,
    covid_radiography,
    dicom_folder,
    kermany,
    tb_chest,
)
from data.sources.dataset_card import Card
from data.sources.manifest import FILE_NAME, Manifest, ManifestError


class Source(Protocol):
    """What each adapter module is."""

    CARD: Card

    def list_images(self, folder: Path) -> Manifest:
        """List the images of a folder in the layout that the card describes; opens no image and stores nothing.

        Raises:
            ManifestError: the folder is not that layout; one line.
        """


ADAPTERS: tuple[Source, ...] = (
    kermany,
    covid_radiography,
    tb_chest,
    covid_qu_ex,
    bone_fracture,
    dicom_folder,
    class_folders,
)
SOURCES = {adapter.CARD.name: adapter for adapter in ADAPTERS}


def find(name: str) -> Source:
    """Return the adapter of that name.

    Raises:
        ManifestError: there is none; the line lists those there are.
    """
    if name not in SOURCES:
        raise ManifestError(
            f"there is no source and no folder {name!r}; the sources are synthetic, {', '.join(SOURCES)}, and any "
            f"folder with a {FILE_NAME}"
        )
    return SOURCES[name]
