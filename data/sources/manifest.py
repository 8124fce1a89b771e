"""Read `manifest.csv`: the images of a folder, their labels, patients and licences.

The generic source: `jobs.ingest` calls `read` for a folder that brings a manifest of its own. The whole table is
judged before anything is stored, and its problems come back as one line. No image is opened
here: a bad image is quarantined, a bad manifest refused.
"""

import csv
import difflib
import io
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from data.imaging.deidentify_rules import YEARS_OF
from data.taxonomy import TAXONOMY_PATH, taxonomy

FILE_NAME = "manifest.csv"
REQUIRED_COLUMNS = ("path", "label", "source", "patient_id", "sex", "age", "view", "license", "sha256")
OPTIONAL_COLUMNS = ("group_id",)
SHOWN_PROBLEMS = 5
SEXES = {"m": "M", "male": "M", "f": "F", "female": "F", "o": "O", "other": "O", "u": None, "unknown": None}
OLDEST_YEARS = 130

NUMBER = re.compile(r"\d{1,3}(\.\d+)?")
AGE_STRING = re.compile(r"(\d{1,3})([YMWD])")  # DICOM PS3.5 6.2, value representation AS
AGE_RANGE = re.compile(r"(\d{1,3})\s*(?:[-–]\s*(\d{1,3})|\+)(?:\s*(?:years?|y)\b.*)?", re.IGNORECASE)
SHA256 = re.compile(r"[0-9a-f]{64}")


class ManifestError(ValueError):
    """The folder or its manifest cannot be used; one line with the file, the lines and what to do."""


@dataclass(frozen=True, kw_only=True)
class ManifestRow:
    line: int
    """Line of the row in the file, the header being 1; its number where no file lists the images."""
    path: str
    """As written: relative to the manifest."""
    file: Path
    """Where that is; inside the folder, whether it exists or not."""
    label: str
    """A name of the taxonomy."""
    source_label: str
    """The label as the manifest has it."""
    source: str
    patient_id: str | None
    sex: str | None
    """`M`, `F` or `O`."""
    age_years: float | None
    """None too when only a range is known."""
    age_range_years: tuple[int, int | None] | None
    """Lowest and highest age (None: open) where the source gives a range."""
    view: str | None
    license: str | None
    sha256: str | None
    """Of the file, when the manifest names it."""
    group_id: str | None
    further: dict[str, str]
    """The other columns, where filled; they may identify a patient."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The images that a source lists, whatever its layout."""

    folder: Path
    rows: tuple[ManifestRow, ...]
    title: str = FILE_NAME
    """What lists the rows: a file in the folder, or the name of a source."""
    by_hand: bool = True
    """True when a person wrote the list: a contradiction in it is refused, to be corrected. Else it is set aside."""
    public_paths: bool = False
    """True when the paths are a published dataset's, and so name no patient."""
    notes: tuple[str, ...] = ()
    """Remarks on the folder: copies that were not read, names without an image."""

    @property
    def sources(self) -> tuple[str, ...]:
        return tuple(sorted({row.source for row in self.rows}))

    def where(self, row: ManifestRow) -> str:
        """Describe where a row is; a path only where paths are public and name no patient."""
        return (
            row.path
            if self.public_paths
            else f"{'line' if self.by_hand else 'image'} {row.line} of {self.title}"
        )


@dataclass(frozen=True, kw_only=True)
class Problem:
    line: int
    text: str


def read(folder: Path) -> Manifest:
    """Read and judge the manifest of a folder.

    Raises:
        ManifestError: the first few problems of the whole file, in one line.
    """
    file = folder / FILE_NAME
    header, records = _table(file, _text(folder, file))
    problems: list[Problem] = []
    root = os.path.realpath(folder)
    rows = [_row(root, header, line, cells, problems) for line, cells in records]
    whole = tuple(row for row in rows if row is not None)
    problems += _repeats(whole)
    if problems:
        raise refusal(file, problems)
    if not whole:
        raise ManifestError(f"{file} has a header and no rows: add one row for each image")
    return Manifest(folder=folder, rows=whole)


def refusal(file: Path, problems: Sequence[Problem]) -> ManifestError:
    """Compose one line that names the first problems by their lines, and no value but a label that is nearly known."""
    first = sorted(problems, key=lambda problem: problem.line)
    shown = "; ".join(f"line {problem.line}: {problem.text}" for problem in first[:SHOWN_PROBLEMS])
    more = f"; and {len(first) - SHOWN_PROBLEMS} more" if len(first) > SHOWN_PROBLEMS else ""
    hint = ""
    if any(problem.text.startswith("unknown label") for problem in first):
        hint = (
            f". Known labels: {', '.join(taxonomy().names)}; another name for one of them goes to `synonyms` "
            f"in {TAXONOMY_PATH.parent.name}/{TAXONOMY_PATH.name}"
        )
    return ManifestError(f"{file}: {shown}{more}{hint}. Nothing was stored; correct the file and run again")


def unknown_label(value: str) -> str:
    """Describe what is wrong with a label that the taxonomy does not know.

    The value is named only where it is nearly a known one: where columns have slipped, it may be a patient's name.
    """
    near = difflib.get_close_matches(value.lower(), [*taxonomy().names, *taxonomy().synonyms], n=1)
    return f"unknown label {_quote(value)}; is it {near[0]}?" if near else "unknown label"


def _text(folder: Path, file: Path) -> str:
    try:
        blob = file.read_bytes()
    except FileNotFoundError as error:
        missing = FILE_NAME if folder.is_dir() else "folder"
        where = folder if missing == "folder" else f"in {folder}"
        raise ManifestError(
            f"there is no {missing} {where}: give a folder that holds {FILE_NAME} and the images it names"
        ) from error
    except PermissionError as error:
        raise ManifestError(
            f"no permission to read {file}: run `chmod -R u+rX {folder}`, or run as its owner"
        ) from error
    except OSError as error:
        raise ManifestError(f"cannot read {file}: {error.strerror}; is {folder} a folder?") from error
    try:
        return blob.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = blob.count(b"\n", 0, error.start) + 1
        raise ManifestError(f"{file}: line {line} is not UTF-8: save the file as UTF-8") from error


def _table(file: Path, text: str) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Return the header, and (line, cells) of each row that is not blank."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        records = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader if any(cells)]
    except csv.Error as error:
        raise ManifestError(f"{file}: line {reader.line_num} is not CSV: {error}") from error
    if not records:
        raise ManifestError(f"{file} is empty: its first line names the columns {','.join(REQUIRED_COLUMNS)}")
    header = records[0][1]
    if missing := [name for name in REQUIRED_COLUMNS if name not in header]:
        raise ManifestError(
            f"{file}: line 1 lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}; "
            f"it takes {','.join(REQUIRED_COLUMNS)} (a value may be empty, a column may not be left out)"
        )
    if twice := sorted({name for name in header if header.count(name) > 1}):
        raise ManifestError(f"{file}: line 1 names {', '.join(map(repr, twice))} twice; remove one")
    return header, records[1:]


def _row(
    root: str, header: list[str], line: int, cells: list[str], problems: list[Problem]
) -> ManifestRow | None:
    """Parse one row; what is wrong with it goes to `problems`."""
    if len(cells) != len(header):
        problems.append(Problem(line=line, text=f"{len(cells)} values under {len(header)} columns"))
        return None
    values = dict(zip(header, cells, strict=True))
    age = read_age(values["age"])
    sha256 = values["sha256"].lower()
    label = taxonomy().translate(values["label"])
    sex = values["sex"].lower()
    wrong = [
        wrong_path(root, values["path"]),
        None if label else unknown_label(values["label"]) if values["label"] else "no label",
        None if values["source"] else "no source: name the collection that the image comes from",
        None if not sex or sex in SEXES else "sex cannot be read: write M, F, O or nothing",
        None if age else "age cannot be read: write years (46, 0.5), 046Y, a range (1-5) or nothing",
        None if not sha256 or SHA256.fullmatch(sha256) else "sha256 is not 64 hexadecimal digits",
    ]
    problems += [Problem(line=line, text=text) for text in wrong if text]
    if label is None or age is None or any(wrong):
        return None
    known = {*REQUIRED_COLUMNS, *OPTIONAL_COLUMNS}
    return ManifestRow(
        line=line,
        path=values["path"],
        file=Path(root, values["path"]),
        label=label,
        source_label=values["label"],
        source=values["source"],
        patient_id=values["patient_id"] or None,
        sex=SEXES.get(sex),
        age_years=age[0],
        age_range_years=age[1],
        view=values["view"] or None,
        license=values["license"] or None,
        sha256=sha256 or None,
        group_id=values.get("group_id") or None,
        further={name: value for name, value in values.items() if name not in known and value},
    )


def wrong_path(root: str, path: str) -> str | None:
    """Return what is wrong with a path that should lie below `root` (a real path), None when nothing is."""
    if not path:
        return "no path"
    if "\0" in path or PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
        return "the path must be relative to the manifest and stay below its folder"
    real = os.path.realpath(Path(root, path))
    if not real.startswith(root.rstrip("/") + "/"):
        return "the path is a link that leads out of the folder: copy the file instead"
    return None


def read_age(text: str) -> tuple[float | None, tuple[int, int | None] | None] | None:
    """Parse age in years and range in years, either or both unknown; None when the text is no age."""
    if not text or text.lower() == "unknown":
        return None, None
    if NUMBER.fullmatch(text):
        years = float(text)
    elif match := AGE_STRING.fullmatch(text):
        years = int(match[1]) * YEARS_OF[match[2]]
    elif match := AGE_RANGE.fullmatch(text):
        low, high = int(match[1]), int(match[2]) if match[2] else None
        return (None, (low, high)) if low <= (high or low) <= OLDEST_YEARS else None
    else:
        return None
    return (round(years, 2), None) if years <= OLDEST_YEARS else None


def _repeats(rows: Iterable[ManifestRow]) -> list[Problem]:
    """Find rows that name the same file twice, or the same content of one source with two labels."""
    problems = []
    by_path: dict[str, ManifestRow] = {}
    by_content: dict[tuple[str, str], ManifestRow] = {}
    for row in rows:
        before = by_path.setdefault(str(PurePosixPath(row.path)), row)
        if before is not row:
            text = f"duplicate of line {before.line}: it names the same path; remove one"
            problems.append(Problem(line=row.line, text=text))
        elif row.sha256 is not None:
            before = by_content.setdefault((row.source, row.sha256), row)
            problems += contradiction(before, row)
    return problems


def contradiction(first: ManifestRow, second: ManifestRow) -> list[Problem]:
    """Return the problem of two rows with the same content, when their labels differ."""
    if first.label == second.label:
        return []
    labels = f"{first.label} there, {second.label} here"
    text = f"the same image as line {first.line} with another label ({labels}); keep the right one"
    return [Problem(line=second.line, text=text)]


def _quote(value: str) -> str:
    return repr(value if len(value) <= 60 else value[:57] + "...")
