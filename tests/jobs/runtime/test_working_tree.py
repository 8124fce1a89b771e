"""A real checkout: what is told of its changes, and what never is."""

import subprocess
from pathlib import Path

import pytest

from jobs.runtime import working_tree


def git(root: Path, *arguments: str) -> None:
    subprocess.run(
        ["git", "-C", str(root), "-c", "user.name=t", "-c", "user.email=t@example.org", *arguments],
        check=True,
        capture_output=True,
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "train.py").write_text("rate = 1\n")
    (tmp_path / "site.pem").write_text("a certificate\n")
    (tmp_path / ".gitignore").write_text(".raydiology/\n")
    git(tmp_path, "init")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "first")
    return tmp_path


def test_a_clean_checkout_has_no_changes_and_a_folder_without_git_is_unknown(
    root: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert working_tree.changes(root, {}) == ""
    assert working_tree.changes(tmp_path_factory.mktemp("package"), {}) is None


def test_changes_are_shown_staged_or_not_and_can_be_applied_to_the_commit(root: Path) -> None:
    (root / "train.py").write_text("rate = 2\n")
    told = working_tree.changes(root, {})
    assert told is not None
    assert "-rate = 1\n+rate = 2\n" in told
    git(root, "add", ".")
    assert working_tree.changes(root, {}) == told
    git(root, "checkout", "HEAD", "--", "train.py")
    subprocess.run(["git", "-C", str(root), "apply", "-"], input=told, text=True, check=True)
    assert (root / "train.py").read_text() == "rate = 2\n"


def test_of_files_that_git_does_not_know_code_is_named_and_the_rest_is_counted(root: Path) -> None:
    (root / "new.py").write_text("word = 1\n")
    (root / "Jane-Doe-1951.png").write_bytes(b"x")
    (root / ".raydiology").mkdir()
    (root / ".raydiology" / "env").write_text("KEY=1")
    told = working_tree.changes(root, {})
    assert told == "# not in git: new.py\n# not in git: 1 other files\n"


def test_secrets_are_never_told(root: Path) -> None:
    environ = {
        "AWS_SECRET_ACCESS_KEY": "abcdefgh12345",
        "RAYDIOLOGY_DATABASE_URL": "postgresql://user:pass-word-99@host/db",
        "RAYDIOLOGY_S3_PORT": "8333",
    }
    (root / "train.py").write_text("key = 'abcdefgh12345'\npassword = 'pass-word-99'\nport = 8333\n")
    (root / "site.pem").write_text("another certificate\n")
    (root / ".env").write_text("KEY=1")
    told = working_tree.changes(root, environ)
    assert told is not None
    assert "+key = '[secret]'\n+password = '[secret]'\n+port = 8333\n" in told
    assert "certificate" not in told
    assert ".env" not in told


def test_what_is_long_is_cut_at_a_line_and_says_so(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "train.py").write_text("".join(f"rate_{n} = {n}  # ä\n" for n in range(1000)))
    monkeypatch.setattr(working_tree, "LARGEST_BYTES", 5000)
    told = working_tree.changes(root, {})
    assert told is not None
    *lines, last = told.splitlines()
    assert last.startswith("# cut here: ")
    assert last.endswith(" bytes are not shown")
    assert 4900 < len("\n".join(lines).encode()) <= 5000
    assert lines[-1].endswith("# ä")
