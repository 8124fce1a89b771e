"""Tests mirror the source: a module of some size has a test file of its name, at its place."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("cluster", "data", "train", "tune", "serve", "jobs")
MIN_LINES = 40
MIN_SHARE = 0.8
TIERS = ("ranks", "services", "services_training", "ray", "end_to_end")
"""Tiers that run what cannot run alone, in flat folders."""
ELSEWHERE: dict[str, str] = {}
"""Modules without a test file of their name, with what tests them."""


def large_modules(root: Path = ROOT) -> list[str]:
    """Return the modules of the rooms over `MIN_LINES` lines, as paths below the root."""
    paths = (
        path
        for room in ROOMS
        for path in sorted((root / room).rglob("*.py"))
        if "migrations" not in path.parts
    )
    return [str(path.relative_to(root)) for path in paths if len(path.read_text().splitlines()) > MIN_LINES]


def is_mirrored(module: str, root: Path = ROOT) -> bool:
    """Return whether a test file has the module's name, at its place or in a tier of its own."""
    path = Path(module)
    name = path.parent.name if path.name == "__main__.py" else path.stem
    places = (path.parent, *(Path(tier) for tier in TIERS))
    return any((root / "tests" / place / f"test_{name}.py").exists() for place in places)


def test_every_module_has_its_test_file_or_a_reason() -> None:
    missing = [module for module in large_modules() if not is_mirrored(module)]
    assert sorted(set(missing) - set(ELSEWHERE)) == []


def test_the_list_of_reasons_is_short_and_true() -> None:
    modules = large_modules()
    assert sorted(module for module in ELSEWHERE if module not in modules or is_mirrored(module)) == []
    assert all(ELSEWHERE.values())
    assert 1 - len(ELSEWHERE) / len(modules) >= MIN_SHARE


def test_a_module_without_a_test_is_found(tmp_path: Path) -> None:
    for file, lines in (("serve/large.py", 41), ("serve/small.py", 40), ("serve/api/tested.py", 41)):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("pass\n" * lines)
    (tmp_path / "tests/serve/api").mkdir(parents=True)
    (tmp_path / "tests/serve/api/test_tested.py").touch()
    modules = large_modules(tmp_path)
    assert [module for module in modules if not is_mirrored(module, tmp_path)] == ["serve/large.py"]
