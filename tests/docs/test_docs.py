"""What the docs say about names is checked against the code."""

import re
from pathlib import Path

import pytest

from cluster.settings import Settings

ROOT = Path(__file__).resolve().parents[2]


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
    "page", [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md"], ids=lambda p: p.name
)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_readme_tree_names_every_file_of_the_rooms() -> None:
    tree = (ROOT / "README.md").read_text()
    rooms = ("cluster", "data", "train", "tune", "serve", "jobs")
    files = [path for room in rooms for path in (ROOT / room).glob("*") if path.is_file()]
    files += (ROOT / "data/sources").glob("*.py")
    assert [path.name for path in files if path.name != "__init__.py" and path.name not in tree] == []


def test_every_verb_of_the_readme_is_a_target_of_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z]+)", (ROOT / "README.md").read_text())) <= targets
