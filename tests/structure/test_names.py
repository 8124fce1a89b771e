"""No page, docstring or comment names a module, a file or a definition of the rooms that is not there."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = "cluster|data|train|tune|serve|jobs"
DOTTED = re.compile(rf"`((?:{ROOMS})(?:\.[A-Za-z_]\w*)+)(?:\([^`]*)?`")
PATH = re.compile(rf"(?<![\w/.-])((?:{ROOMS}|tests|docs)/[\w./-]*\w\.(?:py|yaml|md|j2|sql))\b")
PAGES = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
DATED = {"experiments.md"}
"""Pages of dated entries, which name what was there then."""
PLACEHOLDERS = {"train.zip", "data.yaml", "train.human_card"}
"""Files of others that have the form of a module's name, and a column of MLflow's."""
SETTING = re.compile(r"(?:train|etl)\.(?:[a-z_]+\.)?([a-z_]+)")
"""An argument of a job has the form of a module's name too: `train.strategy`; it is looked up among the fields."""


@cache
def definitions(path: Path) -> dict[str, ast.AST]:
    """Return what a module defines or imports at its top level, by name."""
    return _names_in(ast.parse(path.read_text()).body)


def _names_in(body: list[ast.stmt]) -> dict[str, ast.AST]:
    names: dict[str, ast.AST] = {}
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names[node.name] = node
        elif isinstance(node, ast.Assign):
            names |= {
                name.id: node
                for target in node.targets
                for name in ast.walk(target)
                if isinstance(name, ast.Name)
            }
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names[node.target.id] = node
        elif isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name: node for alias in node.names}
    return names


def is_there(name: str) -> bool:
    """Return whether a dotted name leads to a package, a module, or something that a module defines."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        module = ROOT.joinpath(*parts[:length])
        if module.is_dir() and length == len(parts):
            return True
        path = module.with_suffix(".py")
        if not path.is_file():
            continue
        rest = parts[length:]
        if not rest:
            return True
        node = definitions(path).get(rest[0])
        if node is None or len(rest) == 1 or not isinstance(node, ast.ClassDef):
            return node is not None
        return rest[1] in _names_in(node.body) or f"self.{rest[1]}" in ast.unparse(node)
    return False


@cache
def fields() -> frozenset[str]:
    """Return the names of all fields of the rooms' classes."""
    trees = (ast.parse(path.read_text()) for room in ROOMS.split("|") for path in (ROOT / room).rglob("*.py"))
    return frozenset(
        node.target.id
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    )


def stale(text: str) -> Iterator[str]:
    """Find the names in backticks and the paths that lead nowhere."""
    for name in DOTTED.findall(text):
        setting = SETTING.fullmatch(name)
        if not is_there(name) and name not in PLACEHOLDERS and not (setting and setting[1] in fields()):
            yield name
    for path in PATH.findall(text):
        if not (ROOT / path).exists():
            yield path


def _prose(path: Path) -> str:
    tokens = tokenize.generate_tokens(io.StringIO(path.read_text()).readline)
    return "\n".join(token.string for token in tokens if token.type in (tokenize.STRING, tokenize.COMMENT))


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.name not in DATED], ids=lambda page: page.name
)
def test_pages_name_what_is_there(page: Path) -> None:
    assert sorted(set(stale(page.read_text()))) == []


@pytest.mark.parametrize("room", [*ROOMS.split("|"), "tests"])
def test_docstrings_and_comments_name_what_is_there(room: str) -> None:
    paths = [path for path in (ROOT / room).rglob("*.py") if path.parent != Path(__file__).parent]
    found = {path.relative_to(ROOT): names for path in paths if (names := [*stale(_prose(path))])}
    assert found == {}


def test_a_stale_name_is_found() -> None:
    text = (
        "`serve.nowhere`, `cluster.settings.Settings.nothing`, `cluster.settings.Settings`, serve/nowhere.py"
    )
    assert [*stale(text)] == ["serve.nowhere", "cluster.settings.Settings.nothing", "serve/nowhere.py"]
