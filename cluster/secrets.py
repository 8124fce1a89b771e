"""Encrypt bytes at rest and turn names into pseudonyms, with keys that live in files of their own.

Originals and quarantined originals are sealed before they leave the process. Knows nothing of what it seals.
"""

import hashlib
import hmac
import os
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

MAGIC = b"RDG1"
NONCE_BYTES = 12  # NIST SP 800-38D, 8.2.1
KEY_BYTES = 32


class SecretError(ValueError):
    """A key file is missing or malformed, or sealed bytes were changed."""


def read_key(path: Path) -> bytes:
    """Read a 32-byte key written as 64 hexadecimal digits.

    Raises:
        SecretError: the file is absent, unreadable or not such a key.
    """
    try:
        key = bytes.fromhex(path.read_text().strip())
    except (OSError, ValueError) as error:
        raise SecretError(f"cannot read a key from {path}: {error}") from error
    if len(key) != KEY_BYTES:
        raise SecretError(f"{path} holds {len(key)} bytes, a key has {KEY_BYTES}")
    return key


def seal(plain: bytes, key: bytes, *, context: bytes = b"") -> bytes:
    """Encrypt with AES-256-GCM under a fresh nonce; `context` is authenticated, not stored."""
    nonce = os.urandom(NONCE_BYTES)
    return MAGIC + nonce + AESGCM(key).encrypt(nonce, plain, context)


def unseal(sealed: bytes, key: bytes, *, context: bytes = b"") -> bytes:
    """Decrypt what `seal` made with the same key and context.

    Raises:
        SecretError: not sealed by us, cut short, changed, or another key or context.
    """
    if not sealed.startswith(MAGIC):
        raise SecretError("these bytes were not sealed by Raydiology")
    nonce, body = sealed[len(MAGIC) : len(MAGIC) + NONCE_BYTES], sealed[len(MAGIC) + NONCE_BYTES :]
    try:
        return AESGCM(key).decrypt(nonce, body, context)
    except (InvalidTag, ValueError) as error:
        raise SecretError(
            "sealed bytes do not open: another key, another context, or they were changed"
        ) from error


def keyed_hash(key: bytes, *parts: str) -> str:
    """Compute HMAC-SHA256 over length-prefixed parts, so that no two lists collide; 64 hexadecimal digits."""
    mac = hmac.new(key, digestmod=hashlib.sha256)
    for part in parts:
        data = part.encode()
        mac.update(len(data).to_bytes(8, "big") + data)
    return mac.hexdigest()
