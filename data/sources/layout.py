"""Shared by the adapters: find a published layout in an unpacked folder, list its images, refuse other layouts.

Archives unpack into one folder more or less, other systems leave files of their own, and some publishers packed a
copy of the set into the set. None of that is the data, and none of it may stop the reading. Links are refused: an
unpacked archive must not be able to point at other files of this machine.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data.sources.dataset_card import Card
from data.sources.manifest import Manifest, ManifestError, ManifestRow

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg"})
JUNK_FOLDERS = frozenset({"__macosx", "@eadir"})
JUNK_FILES = frozenset({"thumbs.db", "desktop.ini"})
DEEPEST = 4
"""Levels below the given folder in which a layout is looked for."""


class LayoutError(ManifestError):
    """The folder does not hold the published layout; one line that says what is missing. Nothing was stored."""


def is_junk(name: str) -> bool:
    """Tell whether a file or folder is no part of any dataset: macOS's and Windows' own, hidden ones."""
    return name.startswith(".") or name.lower() in JUNK_FOLDERS | JUNK_FILES


def refused(card: Card, folder: Path, problem: str) -> LayoutError:
    return LayoutError(
        f"{folder} is not the published layout of {card.title}: {problem}. It takes {card.layout}. "
        "Nothing was stored"
    )


def find_root(card: Card, folder: Path, fits: Callable[[Path], bool], lacks: str) -> tuple[Path, list[str]]:
    """Return the topmost folder that fits, and a note on other folders beside it that fit as well.

    Args:
        lacks: what no folder had, for the refusal.
    Raises:
        LayoutError: none fits.
    """
    if not folder.is_dir():
        raise refused(card, folder, "it is not a folder" if folder.exists() else "it does not exist")
    level = [Path(os.path.realpath(folder))]
    for _ in range(DEEPEST + 1):
        fitting = [candidate for candidate in level if fits(candidate)]
        if fitting:
            others = [f"{candidate.name} is a copy of the set and was not read" for candidate in fitting[1:]]
            return fitting[0], others
        level = [below for candidate in level for below in _below(candidate)]
    raise refused(card, folder, lacks)


def folders(card: Card, folder: Path) -> list[Path]:
    """List the folders in a folder, by name, without junk."""
    return [Path(entry) for entry in _entries(card, folder) if entry.is_dir(follow_symlinks=False)]


def inner(folder: Path, name: str) -> Path | None:
    """Return the folder of that name, whatever its case."""
    if not folder.is_dir():
        return None
    matches = sorted(
        entry for entry in folder.iterdir() if entry.name.lower() == name.lower() and entry.is_dir()
    )
    return matches[0] if matches else None


def images(card: Card, folder: Path) -> list[Path]:
    """List the PNG and JPEG files directly in a folder, by name.

    Raises:
        LayoutError: it holds another folder; the publisher has none there.
    """
    files = []
    for entry in _entries(card, folder):
        if entry.is_dir(follow_symlinks=False):
            raise refused(card, folder, "it holds a folder among the images")
        if Path(entry.name).suffix.lower() in IMAGE_SUFFIXES:
            files.append(Path(entry))
    return files


def class_folders(
    card: Card, folder: Path, known: Sequence[str], besides: Sequence[str] = ()
) -> dict[str, Path]:
    """Return the known class folders in a folder, each of which must be there.

    Args:
        besides: folders of which the publisher is known to have left copies there.
    Raises:
        LayoutError: one is missing, or there is a class that the card does not know.
    """
    there = {inside.name.lower(): inside for inside in folders(card, folder)}
    if strange := [
        inside.name
        for key, inside in there.items()
        if key not in {name.lower() for name in (*known, *besides)}
    ]:
        names = ", ".join(map(repr, strange))
        raise refused(card, folder, f"it has an unknown folder {names}; the classes are {', '.join(known)}")
    if missing := [name for name in known if name.lower() not in there]:
        raise refused(card, folder, f"it lacks the folder {', '.join(map(repr, missing))}")
    return {name: there[name.lower()] for name in known}


@dataclass(frozen=True)
class Listing:
    """Rows as an adapter finds them; `done` makes a manifest of them."""

    card: Card
    root: Path
    notes: list[str] = field(default_factory=list)
    rows: list[ManifestRow] = field(default_factory=list)

    @classmethod
    def find(cls, card: Card, folder: Path, fits: Callable[[Path], bool], lacks: str) -> "Listing":
        """Open a listing of the layout that lies in a folder; see `find_root`."""
        root, copies = find_root(card, folder, fits, lacks)
        return cls(card, root, copies)

    def add(self, file: Path, label: str, **known: Any) -> None:
        """Add one image; `known` holds the fields of `ManifestRow` that the source tells."""
        further = {name: value for name, value in known.pop("further", {}).items() if value}
        unknown: dict[str, Any] = dict.fromkeys(
            ("patient_id", "sex", "age_years", "age_range_years", "view", "sha256", "group_id")
        )
        self.rows.append(
            ManifestRow(
                **{
                    **unknown,
                    "line": len(self.rows) + 1,
                    "path": file.relative_to(self.root).as_posix(),
                    "file": file,
                    "label": self.card.class_of(label),
                    "source_label": label,
                    "source": self.card.name,
                    "license": self.card.license,
                    "further": further,
                    **known,
                }
            )
        )

    def done(self, *, public_paths: bool = True) -> Manifest:
        """Return the manifest.

        Args:
            public_paths: whether the folder is a published dataset; a folder of one's own may name patients.
        Raises:
            LayoutError: there is no image.
        """
        if not self.rows:
            raise refused(self.card, self.root, "its folders hold no image")
        return Manifest(
            folder=self.root,
            rows=tuple(self.rows),
            title=self.card.name,
            by_hand=False,
            public_paths=public_paths,
            notes=tuple(self.notes),
        )


def _below(folder: Path) -> list[Path]:
    """List the folders in a folder that need not be the set's: links are not followed, and no mistake."""
    with os.scandir(folder) as entries:
        return sorted(
            Path(entry)
            for entry in entries
            if entry.is_dir(follow_symlinks=False) and not is_junk(entry.name)
        )


def _entries(card: Card, folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as scanned:
        entries = sorted(
            (entry for entry in scanned if not is_junk(entry.name)), key=lambda entry: entry.name
        )
    if any(entry.is_symlink() for entry in entries):
        raise LayoutError(
            f"{folder} of {card.title} holds a link: copy what it points to in its place. Nothing was stored"
        )
    return entries
