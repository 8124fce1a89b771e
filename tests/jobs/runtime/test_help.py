"""Every job says what it does and which arguments it takes."""

import importlib
from pathlib import Path

import pytest

from jobs.runtime import entry

JOBS = Path(__file__).resolve().parents[3] / "jobs"
MODULES = [f"jobs.{path.stem}" for path in JOBS.glob("*.py") if '__name__ == "__main__"' in path.read_text()]
PACKAGES = [f"jobs.{path.parent.name}.job" for path in JOBS.glob("*/__main__.py")]


@pytest.mark.parametrize("name", sorted([*MODULES, *PACKAGES]))
def test_help_describes_the_job_and_its_arguments(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    module = importlib.import_module(name)
    with pytest.raises(SystemExit) as stopped:
        entry.parse(module.Arguments, name.split(".")[1], ["--help"])
    printed = " ".join(capsys.readouterr().out.split())
    assert stopped.value.code == 0
    assert " ".join((module.__doc__ or "").split())[:40] in printed
    assert all(f"--{field}" in printed for field in module.Arguments.__dataclass_fields__)
