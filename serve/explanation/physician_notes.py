"""Physicians' own explanations, as training pairs; none that the checker would not show a patient.

A file has a JSON object a line: `{"finding": {…as serve.explanation.finding.Finding…}, "text": "…"}`. The
checker's list of allowed words keeps patients out: a name, a date, a place or any number but the finding's own is
not on it, so such a note is left out, and only its line and the checker's codes are reported, never its text.
Knows neither Ray nor torch.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from serve.explanation.checker import check
from serve.explanation.finding import Finding, prompt
from serve.explanation.training_pairs import is_held_out


class NotesError(ValueError):
    """The file cannot be read as notes; the message names the line, never its content."""


@dataclass(frozen=True, kw_only=True)
class Notes:
    pairs: list[tuple[str, str]]
    refused: dict[int, tuple[str, ...]]
    """Line → the checker's codes."""
    held_out: int
    """Notes about findings that are held out for the comparison."""


def read(path: Path) -> Notes:
    """Read a file of notes.

    Raises:
        NotesError: a line is no note, or the file is absent.
    """
    pairs: list[tuple[str, str]] = []
    refused: dict[int, tuple[str, ...]] = {}
    held_out = 0
    for number, line in _lines(path):
        finding, text = _note(path, number, line)
        if against := check(text, finding):
            refused[number] = tuple(against)
        elif is_held_out(finding):
            held_out += 1
        else:
            pairs.append((prompt(finding), text))
    return Notes(pairs=pairs, refused=refused, held_out=held_out)


def _lines(path: Path) -> list[tuple[int, str]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise NotesError(f"{path} cannot be read as UTF-8 text: {type(error).__name__}") from error
    return [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]


def _note(path: Path, number: int, line: str) -> tuple[Finding, str]:
    try:
        note = json.loads(line)
        return Finding.from_dict(note["finding"]), str(note["text"]).strip()
    except (ValueError, KeyError, TypeError) as error:
        raise NotesError(
            f'{path}, line {number} is no note: a line is {{"finding": {{"label", "confidence", "abstained", '
            '"prediction_set", "triage"}, "text"}'
        ) from error
