"""Tables in Markdown."""

from collections.abc import Iterable, Sequence


def row(cells: Iterable[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |\n"


def table(header: Sequence[str], rows: Iterable[Iterable[object]]) -> str:
    return row(header) + "|" + "---|" * len(header) + "\n" + "".join(map(row, rows))
