"""One entry of the journal as bytes: a plain header, and a sealed body with the row and the image.

The header has no patient data: a kind, an id, a length and a checksum. Length and checksum tell a whole entry from
one that was torn when a process or a machine died. Knows no file system and no database.
"""

import json
import struct
import zlib
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal
from uuid import UUID

from cluster.secrets import seal, unseal

MAGIC = b"RDJ1"
HEADER = struct.Struct(">4s1s16sII")  # magic, kind, id, bytes of the body, CRC-32 of kind, id and body
ROW_LENGTH = struct.Struct(">I")
KINDS: dict[bytes, Literal["prediction", "failure"]] = {b"P": "prediction", b"F": "failure"}
CODES = {kind: code for code, kind in KINDS.items()}


class TornError(ValueError):
    """The bytes end before the entry does, or the checksum is wrong."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    kind: Literal["prediction", "failure"]
    id: UUID
    row: dict[str, Any]
    """JSON values by column."""
    image: bytes | None
    """PNG that the object store lacks; None if it has it."""


@dataclass(frozen=True, kw_only=True)
class Header:
    kind: bytes
    id: UUID
    body_bytes: int
    checksum: int

    @property
    def entry_bytes(self) -> int:
        return HEADER.size + self.body_bytes


def encode(entry: Entry, key: bytes) -> bytes:
    row = json.dumps(entry.row, separators=(",", ":")).encode()
    plain = ROW_LENGTH.pack(len(row)) + row + (entry.image or b"")
    kind, id_bytes = CODES[entry.kind], entry.id.bytes
    body = seal(plain, key, context=kind + id_bytes)
    return HEADER.pack(MAGIC, kind, id_bytes, len(body), _checksum(kind, id_bytes, body)) + body


def read_header(file: BinaryIO) -> Header | None:
    """Read the header at the file's position; None at the end.

    Raises:
        TornError: no whole header is there.
    """
    data = file.read(HEADER.size)
    if not data:
        return None
    if len(data) < HEADER.size or data[:4] != MAGIC:
        raise TornError("no entry begins here")
    _, kind, id_bytes, body_bytes, checksum = HEADER.unpack(data)
    if kind not in KINDS:
        raise TornError("an entry of no known kind")
    return Header(kind=kind, id=UUID(bytes=id_bytes), body_bytes=body_bytes, checksum=checksum)


def read_entry(file: BinaryIO, key: bytes) -> Entry | None:
    """Read the entry at the file's position; None at the end.

    Raises:
        TornError: it is not whole.
        SecretError: it is whole and was sealed with another key.
    """
    header = read_header(file)
    if header is None:
        return None
    body = file.read(header.body_bytes)
    if len(body) < header.body_bytes or _checksum(header.kind, header.id.bytes, body) != header.checksum:
        raise TornError("the entry is cut short or was changed")
    plain = unseal(body, key, context=header.kind + header.id.bytes)
    (row_bytes,) = ROW_LENGTH.unpack_from(plain)
    image_at = ROW_LENGTH.size + row_bytes
    return Entry(
        kind=KINDS[header.kind],
        id=header.id,
        row=json.loads(plain[ROW_LENGTH.size : image_at]),
        image=plain[image_at:] or None,
    )


def _checksum(kind: bytes, id_bytes: bytes, body: bytes) -> int:
    return zlib.crc32(body, zlib.crc32(kind + id_bytes))
