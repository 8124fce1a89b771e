"""Zip the rooms that serve a model, so that a release bundle carries its own code.

Serve's declarative API accepts only remote packages; this one is the bundle's. The same files give the same
bytes, so that equal code never makes a new bundle.
"""

import io
import zipfile
from pathlib import Path

from cluster.settings import PROJECT_ROOT

ROOMS = ("cluster", "data", "serve")
EPOCH = (1980, 1, 1, 0, 0, 0)  # the zip format's earliest time


def build(root: Path = PROJECT_ROOT, rooms: tuple[str, ...] = ROOMS) -> bytes:
    """Build the zip: one top-level folder `raydiology/`, as Ray asks of remote packages, with the rooms in it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as package:
        for room in rooms:
            for path in sorted((root / room).rglob("*")):
                if path.is_file() and "__pycache__" not in path.parts:
                    info = zipfile.ZipInfo(f"raydiology/{path.relative_to(root).as_posix()}", EPOCH)
                    info.external_attr = 0o644 << 16
                    package.writestr(info, path.read_bytes(), zipfile.ZIP_DEFLATED)
    return buffer.getvalue()
