"""API keys in the database: only their SHA-256, with a role and an id that is safe to log."""

import hashlib
from collections.abc import Mapping

import psycopg
from psycopg.rows import DictRow


def key_sha256(key: str) -> str:
    """Return the hash under which a key is stored; a plain hash is enough, since keys are long and random."""
    return hashlib.sha256(key.encode()).hexdigest()


def ensure_api_keys(connection: psycopg.Connection[DictRow], keys: Mapping[str, str]) -> None:
    """Store the embedded platform's keys, role -> key; a key that is there already stays as it is, revoked or not."""
    for role, key in keys.items():
        connection.execute(
            "INSERT INTO api_keys (key_sha256, key_id, role) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
            (key_sha256(key), f"embedded-{role}", role),
        )
