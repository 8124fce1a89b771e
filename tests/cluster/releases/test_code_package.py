import hashlib
import io
import subprocess
import sys
import zipfile
from pathlib import Path

from cluster.releases import code_package


def test_the_same_files_give_the_same_bytes_whenever_they_were_written(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder / "serve").mkdir(parents=True)
        (tmp_path / folder / "serve/deployments.py").write_text("x = 1\n")
        (tmp_path / folder / "serve/__pycache__").mkdir()
        (tmp_path / folder / "serve/__pycache__/app.pyc").write_bytes(folder.encode())
    one, two = (code_package.build(tmp_path / folder, ("serve",)) for folder in ("one", "two"))
    assert hashlib.sha256(one).digest() == hashlib.sha256(two).digest()


def test_the_package_holds_what_serving_imports_under_one_folder_and_no_training() -> None:
    names = zipfile.ZipFile(io.BytesIO(code_package.build())).namelist()
    assert {name.split("/")[0] for name in names} == {"raydiology"}
    assert "raydiology/serve/deployments.py" in names
    assert "raydiology/data/taxonomy.yaml" in names
    assert not [name for name in names if name.startswith(("raydiology/train", "raydiology/jobs"))]


def test_code_of_an_unpacked_package_finds_its_own_root(tmp_path: Path) -> None:
    zipfile.ZipFile(io.BytesIO(code_package.build())).extractall(tmp_path)
    program = "from cluster.settings import PROJECT_ROOT; print(PROJECT_ROOT)"
    ended = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path / "raydiology",
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(ended.stdout.strip()) == (tmp_path / "raydiology").resolve()
