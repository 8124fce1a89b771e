"""The kinds of file that a release bundle may hold: safetensors, ONNX, JSON, text, the code; never a pickle.

`cluster.releases.bundles` asks here before it uploads a file and after it has downloaded one. A file must be what
its name says: a pickle, or an archive with a pickle in it as `torch.save` writes, passes under no name.
"""

import io
import json
import zipfile
from pathlib import PurePosixPath

CODE = "code.zip"
TEXT = (".txt", ".md", ".yaml", ".yml", ".py", ".csv", ".j2", ".mako", ".toml")
TEXT_NAMES = ("MLmodel", "LICENSE")
"""Text files without a suffix: MLflow's description of a model, and terms."""
KINDS = "safetensors, ONNX, JSON and text"
HEADER_BYTES = 8
"""Of a safetensors file: the length of its JSON header, little-endian."""
ONNX_START = b"\x08"
"""Tag of the first field of an ONNX model (`ir_version`, a varint): onnx.proto3, message ModelProto."""
ZIP_START = b"PK\x03\x04"


class ArtefactError(ValueError):
    """A file may not lie in a release bundle; the message is one line that names it."""


def check(name: str, blob: bytes) -> None:
    """Return when the file is of an allowed kind, by its name and by its content.

    Raises:
        ArtefactError: it is not.
    """
    if not _is_what_it_says(name, blob):
        what = (
            "a pickle"
            if _looks_pickled(blob)
            else f"no file of the kinds that a release bundle may hold ({KINDS})"
        )
        raise ArtefactError(f"{name} is {what}: it is neither published nor loaded")


def _is_what_it_says(name: str, blob: bytes) -> bool:
    suffix = PurePosixPath(name).suffix
    if name == CODE:
        return _is_code(blob)
    if suffix == ".safetensors":
        return _is_safetensors(blob)
    if suffix == ".onnx":
        return blob.startswith(ONNX_START)
    if suffix == ".json":
        return _is_json(blob)
    return (suffix in TEXT or name in TEXT_NAMES) and _is_text(blob)


def _is_safetensors(blob: bytes) -> bool:
    """Check the JSON header. Source: the safetensors format, https://github.com/huggingface/safetensors#format."""
    end = HEADER_BYTES + int.from_bytes(blob[:HEADER_BYTES], "little")
    return HEADER_BYTES < end <= len(blob) and _is_json(blob[HEADER_BYTES:end])


def _is_json(blob: bytes) -> bool:
    try:
        json.loads(blob)
    except (ValueError, RecursionError):
        return False
    return True


def _is_text(blob: bytes) -> bool:
    try:
        return "\0" not in blob.decode()
    except UnicodeDecodeError:
        return False


def _is_code(blob: bytes) -> bool:
    """Check for a zip of text files: the rooms that serve the bundle."""
    try:
        with zipfile.ZipFile(io.BytesIO(blob)) as package:
            return all(
                PurePosixPath(entry.filename).suffix in TEXT and _is_text(package.read(entry))
                for entry in package.infolist()
            )
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError, RuntimeError):
        return False


def _looks_pickled(blob: bytes) -> bool:
    """Recognise protocol 2 and later, bare or in a zip as `torch.save` writes it; only words the refusal."""
    if blob.startswith(ZIP_START):
        return b"data.pkl" in blob
    return blob[:1] == b"\x80" and blob[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05") and blob.endswith(b".")
