"""Read the metadata sheets (`*.metadata.xlsx`) of the Qatar University datasets: image names and their origins.

A sheet carries no label; it shows which images are missing, and where each came from.
"""

import zipfile
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from xml.etree.ElementTree import ParseError

import openpyxl
from openpyxl.utils.exceptions import InvalidFileException

from data.sources import layout
from data.sources.dataset_card import Card

NAME_COLUMN = "file name"
MAX_UNPACKED_BYTES = 64 * 2**20
"""The largest published sheet has about 10,000 rows, under a megabyte of XML."""


@dataclass(frozen=True, kw_only=True)
class SheetRow:
    name: str
    """Of the image, without extension, as the sheet writes it."""
    url: str
    """Where the image came from; empty where the sheet does not say."""

    @property
    def origin(self) -> str:
        """The host that the image came from; empty where the sheet names none."""
        return urlsplit(self.url).hostname or "" if "://" in self.url else ""


def read(card: Card, file: Path) -> dict[str, SheetRow]:
    """Read the rows by the lower-case name of the image: sheets and files differ in case.

    Raises:
        LayoutError: it is no spreadsheet, or has no column `FILE NAME`.
    """
    try:
        with zipfile.ZipFile(file) as package:
            unpacked = sum(entry.file_size for entry in package.infolist())
        if unpacked > MAX_UNPACKED_BYTES:
            raise layout.refused(card, file, f"its sheet unpacks to {unpacked} bytes")
        table = _cells(file)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, InvalidFileException, ParseError) as error:
        if isinstance(error, layout.LayoutError):
            raise
        raise layout.refused(card, file, "it is not a readable xlsx sheet; fetch it again") from error
    header = [cell.lower() for cell in table[0]] if table else []
    if NAME_COLUMN not in header:
        raise layout.refused(card, file, f"its first row has no column {NAME_COLUMN.upper()!r}")
    name, url = header.index(NAME_COLUMN), header.index("url") if "url" in header else -1
    rows = [
        SheetRow(name=_stem(cells[name]), url=cells[url] if url >= 0 else "")
        for cells in table[1:]
        if cells[name]
    ]
    return {row.name.lower(): row for row in rows}


def _cells(file: Path) -> list[list[str]]:
    """Read the first sheet as text, every row as wide as the first."""
    book = openpyxl.load_workbook(file, read_only=True, data_only=True)
    try:
        sheet = book.worksheets[0]
        sheet.reset_dimensions()
        rows = [
            ["" if value is None else str(value).strip() for value in cells]
            for cells in sheet.iter_rows(values_only=True)
        ]
    finally:
        book.close()
    width = len(rows[0]) if rows else 0
    return [(row + [""] * width)[:width] for row in rows]


def _stem(name: str) -> str:
    return Path(name).stem if Path(name).suffix.lower() in layout.IMAGE_SUFFIXES else name


def add_class(listing: layout.Listing, label: str, images: Path) -> None:
    """Add the images of one class folder, with what the sheet `LABEL.metadata.xlsx` says; note where the two differ.

    An image that only the sheet names becomes a row as well: `ingest` will find its file missing and say so.
    """
    files = layout.images(listing.card, images)
    sheet = listing.root / f"{label}.metadata.xlsx"
    known = read(listing.card, sheet) if sheet.exists() else {}
    if not sheet.exists():
        listing.notes.append(f"{sheet.name} is missing; the folder alone was read")
    there = {file.stem.lower() for file in files}
    for file in files:
        row = known.get(file.stem.lower())
        listing.add(file, label, further=_told(row) if row else {})
    lost = [row for name, row in known.items() if name not in there]
    for row in lost:
        listing.add(images / f"{Path(row.name).name}.png", label, further=_told(row))
    if lost:
        listing.notes.append(f"images that only {sheet.name} names: {len(lost)}")
    if sheet.exists() and (extra := len(there - set(known))):
        listing.notes.append(f"images of {label} that {sheet.name} does not name: {extra}")


def _told(row: SheetRow) -> dict[str, str]:
    return {"origin": row.origin, "url": row.url}
