"""What the docs say about names is checked against the code."""

import ast
import re
from pathlib import Path

import pytest

from cluster.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("cluster", "data", "train", "tune", "serve", "jobs")
README_LINES = 160


def test_every_job_has_a_heading_and_every_heading_is_a_job() -> None:
    headings = re.findall(r"^## (\w+)$", (ROOT / "docs/jobs.md").read_text(), re.MULTILINE)
    modules = [path for path in (ROOT / "jobs").glob("*.py") if '__name__ == "__main__"' in path.read_text()]
    packages = [path.parent for path in (ROOT / "jobs").glob("*/__main__.py")]
    assert sorted(headings) == sorted(path.stem for path in (*modules, *packages))


def test_every_job_s_section_names_its_last_line_exit_codes_and_an_example() -> None:
    _, *sections = re.split(r"^## ", (ROOT / "docs/jobs.md").read_text(), flags=re.MULTILINE)
    for section in sections:
        name = section.split("\n")[0]
        assert re.search(r"[Ll]ast\s+line", section), name
        assert "Exit codes 0, 1, 2" in section, name
        assert f"python -m jobs.{name}" in section or "make bench" in section, name


def test_every_setting_is_in_the_docs() -> None:
    source = (ROOT / "cluster/settings.py").read_text()
    names = set(re.findall(r'"((?:RAYDIOLOGY|AWS|MLFLOW|RAY|KAGGLE)_[A-Z_]+)"', source))
    docs = (ROOT / "docs/platform.md").read_text()
    assert len(names) >= len(Settings.__dataclass_fields__) - 2
    assert [name for name in sorted(names) if name not in docs] == []


@pytest.mark.parametrize(
    "page",
    [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"],
    ids=lambda p: p.name,
)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_readme_has_each_sub_package_with_its_docstring() -> None:
    readme = (ROOT / "README.md").read_text()
    rows = dict(
        re.findall(r"^\| `((?:cluster|data|train|tune|serve|jobs)/\w+)/` \| (.+) \|$", readme, re.MULTILINE)
    )
    packages = [path.parent for room in ROOMS for path in (ROOT / room).glob("*/__init__.py")]
    assert rows == {
        str(package.relative_to(ROOT)): ast.get_docstring(ast.parse((package / "__init__.py").read_text()))
        for package in packages
    }
    assert all(f"| **`{room}/`** |" in readme for room in (*ROOMS, "tests", "docs"))


def test_the_readme_is_short_and_links_every_page() -> None:
    readme = (ROOT / "README.md").read_text()
    assert len(readme.splitlines()) <= README_LINES
    assert [path.name for path in (ROOT / "docs").glob("*.md") if f"(docs/{path.name})" not in readme] == []


def test_every_verb_of_the_readme_is_a_target_of_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z-]+)", (ROOT / "README.md").read_text())) <= targets
