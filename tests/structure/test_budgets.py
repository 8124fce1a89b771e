"""Size and naming budgets of the source, counted by `ast`, so that rooms stay small enough to be entered.

Every budget is checked on code that breaks it too.
"""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("cluster", "data", "train", "tune", "serve", "jobs")
MAX_FUNCTION_LINES = 60
MAX_FILE_LINES = 300
MAX_MODULES = 15
MORE_MODULES = {"jobs/bench": 21}
"""Folders of many small scripts that nothing imports."""
MAX_FRAGMENT_SHARE = 0.02
MAX_ONE_SHARE = 0.01
FRAGMENT_OPENERS = frozenset(
    re.findall(
        r"\w+",
        "a all an and any as at because but by each every false for from had has have his how if in "
        "is it its like most no nobody none not of on one only or somebody such that the their them "
        "then there these they this those to true under until what when where whether which while "
        "who whom whose why with",
    )
)
"""First words that no imperative verb is: a docstring that opens with one is a phrase, no instruction."""
Function = ast.FunctionDef | ast.AsyncFunctionDef


def sources() -> list[Path]:
    """Return all modules of the rooms; a migration is SQL in one function and is left out."""
    paths = (path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py")))
    return [path for path in paths if "migrations" not in path.parts]


def functions(tree: ast.AST) -> Iterator[Function]:
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def long_functions(tree: ast.AST) -> list[str]:
    return [
        f"{function.name}: {length} lines"
        for function in functions(tree)
        if (length := (function.end_lineno or 0) - function.lineno + 1) > MAX_FUNCTION_LINES
    ]


def _is_property(function: Function) -> bool:
    names = [ast.unparse(decorator) for decorator in function.decorator_list]
    return any(name.endswith(("property", ".setter")) for name in names)


def docstrings(tree: ast.AST) -> list[tuple[str, bool]]:
    """Return the docstring of each function but properties, and whether it opens with a fragment."""
    texts = [
        text
        for function in functions(tree)
        if not _is_property(function) and (text := ast.get_docstring(function))
    ]
    return [(text, text.split()[0].strip("`'\".,:;").lower() in FRAGMENT_OPENERS) for text in texts]


def loop_targets(tree: ast.AST) -> list[str]:
    loops = (node for node in ast.walk(tree) if isinstance(node, ast.For | ast.AsyncFor | ast.comprehension))
    return [name.id for loop in loops for name in ast.walk(loop.target) if isinstance(name, ast.Name)]


@pytest.fixture(scope="module")
def trees() -> dict[Path, ast.Module]:
    return {path: ast.parse(path.read_text()) for path in sources()}


def test_functions_are_short(trees: dict[Path, ast.Module]) -> None:
    assert {path: long for path, tree in trees.items() if (long := long_functions(tree))} == {}


def test_files_are_short(trees: dict[Path, ast.Module]) -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in trees}
    assert {path: length for path, length in lengths.items() if length > MAX_FILE_LINES} == {}


def test_folders_hold_few_modules(trees: dict[Path, ast.Module]) -> None:
    counts = Counter(str(path.parent.relative_to(ROOT)) for path in trees if path.name != "__init__.py")
    assert {
        folder: count for folder, count in counts.items() if count > MORE_MODULES.get(folder, MAX_MODULES)
    } == {}


def test_every_package_says_what_it_is(trees: dict[Path, ast.Module]) -> None:
    folders = {path.parent for path in trees}
    assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []
    for path, tree in trees.items():
        assert ast.get_docstring(tree), f"{path} has no docstring"
        if path.name == "__init__.py":
            assert len(tree.body) == 1, f"{path} holds more than a docstring"


def test_docstrings_open_with_a_verb(trees: dict[Path, ast.Module]) -> None:
    texts = [(path, *entry) for path, tree in trees.items() for entry in docstrings(tree)]
    fragments = [
        f"{path.relative_to(ROOT)}: {text.splitlines()[0]}" for path, text, fragment in texts if fragment
    ]
    assert len(fragments) < MAX_FRAGMENT_SHARE * len(texts), "\n".join(fragments)


def test_loop_targets_have_names(trees: dict[Path, ast.Module]) -> None:
    targets = [(path, name) for path, tree in trees.items() for name in loop_targets(tree)]
    nameless = [str(path.relative_to(ROOT)) for path, name in targets if name == "one"]
    assert len(nameless) < MAX_ONE_SHARE * len(targets), Counter(nameless)


def test_the_counts_see_what_breaks_a_budget() -> None:
    tree = ast.parse(
        "def long():\n" + "    a = 1\n" * MAX_FUNCTION_LINES + "\n"
        'def fragment():\n    """Whether it is so."""\n'
        'def verb():\n    """Return whether it is so."""\n'
        "for one in two: pass\n"
        "three = [one for one, four in five]\n"
    )
    assert long_functions(tree) == [f"long: {MAX_FUNCTION_LINES + 1} lines"]
    assert [fragment for _, fragment in docstrings(tree)] == [True, False]
    assert loop_targets(tree) == ["one", "one", "four"]
