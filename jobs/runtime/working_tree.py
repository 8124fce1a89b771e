"""Records uncommitted changes, so that a model trained from a dirty checkout can be reproduced.

Only the machine that submits a job has the checkout, since the job runs from a package without `.git`: `submitted`
stores the diff in the object store under its hash and names it in the job's environment, where `uncommitted` reads it.
Values of secrets in the environment are blotted out. Of files that git does not know, only the names of
code are listed; the others are counted, since they could be X-rays, named after patients.
"""

import hashlib
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from cluster.objects import ObjectStore
from cluster.settings import PROJECT_ROOT, Settings

VARIABLE = "RAYDIOLOGY_UNCOMMITTED"
"""Environment of a submitted job: `clean`, `unknown`, or the key of the text."""
BUCKET, FOLDER = "checkpoints", "code"
LARGEST_BYTES = 2**20
CODE = (".py", ".yaml", ".yml", ".toml", ".json", ".j2", ".sh", ".sql", ".md")
SECRETS = re.compile(r"SECRET|PASSWORD|PASSWD|TOKEN|CREDENTIAL|_KEY$|DATABASE_URL")
NO_PATHS = (
    ":(exclude).raydiology",
    ":(exclude,glob)**/.env*",
    ":(exclude,glob)**/*.pem",
    ":(exclude,glob)**/*.key",
)
"""Files that are never shown, even if they are committed."""
SHORTEST_SECRET = 8


def submitted(settings: Settings, root: Path = PROJECT_ROOT) -> dict[str, str]:
    """Store this checkout's changes; returns the environment variable that names them to a submitted job."""
    text = changes(root, os.environ)
    if not text:
        return {VARIABLE: "unknown" if text is None else "clean"}
    key = f"{FOLDER}/{hashlib.sha256(text.encode()).hexdigest()}.diff"
    ObjectStore(settings).put(BUCKET, key, text.encode())
    return {VARIABLE: key}


def uncommitted(settings: Settings, environ: Mapping[str, str], root: Path = PROJECT_ROOT) -> str | None:
    """Return the uncommitted changes of this job's code; empty: none; None: unknown."""
    key = environ.get(VARIABLE)
    if key is None:
        return changes(root, environ)
    if key in ("clean", "unknown"):
        return "" if key == "clean" else None
    try:
        return ObjectStore(settings).get(BUCKET, key).decode()
    except FileNotFoundError:
        return None


def changes(root: Path, environ: Mapping[str, str]) -> str | None:
    """Return the difference between the checkout and its commit, bounded; None where there is no checkout."""
    diff = git(root, "diff", "HEAD", "--no-color", "--no-ext-diff", "--no-textconv", "--", ".", *NO_PATHS)
    strangers = git(root, "ls-files", "--others", "--exclude-standard", "--", ".", *NO_PATHS)
    if diff is None or strangers is None:
        return None
    return bounded(without_secrets(_named(strangers.splitlines()) + diff, environ), LARGEST_BYTES)


def _named(strangers: Sequence[str]) -> str:
    code = [name for name in strangers if Path(name).suffix in CODE]
    others = len(strangers) - len(code)
    lines = [*code, *([f"{others} other files"] if others else [])]
    return "".join(f"# not in git: {line}\n" for line in lines)


def without_secrets(text: str, environ: Mapping[str, str]) -> str:
    """Blot out the values of secret variables."""
    named = [value for name, value in environ.items() if SECRETS.search(name)]
    within = [urlsplit(value).password or "" for value in named if "://" in value]
    for secret in (*named, *within):
        if len(secret) >= SHORTEST_SECRET:
            text = text.replace(secret, "[secret]")
    return text


def bounded(text: str, most_bytes: int) -> str:
    """Cut a text after whole lines; its last line then says how much is missing."""
    blob = text.encode()
    if len(blob) <= most_bytes:
        return text
    head = blob[: blob.rfind(b"\n", 0, most_bytes) + 1]
    return head.decode() + f"# cut here: {len(blob) - len(head)} of {len(blob)} bytes are not shown\n"


def git(root: Path, *arguments: str) -> str | None:
    """Return the output of a git command; None where git or the repository is missing."""
    try:
        ended = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return ended.stdout.decode(errors="replace")
