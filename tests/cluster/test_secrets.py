from pathlib import Path

import pytest

from cluster.secrets import SecretError, keyed_hash, read_key, seal, unseal

KEY, OTHER = bytes(32), bytes(31) + b"\x01"


@pytest.mark.parametrize("plain", [b"", b"x", bytes(100_000)])
def test_what_is_sealed_opens_again(plain: bytes) -> None:
    sealed = seal(plain, KEY, context=b"raw/1")
    assert unseal(sealed, KEY, context=b"raw/1") == plain
    assert plain not in sealed or len(plain) < 2


def test_sealing_twice_gives_different_bytes() -> None:
    assert seal(b"x", KEY) != seal(b"x", KEY)


def test_a_change_of_any_byte_another_key_or_context_does_not_open() -> None:
    sealed = seal(b"an X-ray", KEY, context=b"raw/1")
    for position in range(len(sealed)):
        changed = bytearray(sealed)
        changed[position] ^= 1
        with pytest.raises(SecretError):
            unseal(bytes(changed), KEY, context=b"raw/1")
    for key, context in ((OTHER, b"raw/1"), (KEY, b"raw/2")):
        with pytest.raises(SecretError):
            unseal(sealed, key, context=context)
    for length in range(len(sealed)):
        with pytest.raises(SecretError):
            unseal(sealed[:length], KEY, context=b"raw/1")


def test_a_keyed_hash_depends_on_the_key_and_on_where_a_part_ends() -> None:
    assert keyed_hash(KEY, "ab", "c") == keyed_hash(KEY, "ab", "c")
    assert len({keyed_hash(KEY, "ab", "c"), keyed_hash(KEY, "a", "bc"), keyed_hash(OTHER, "ab", "c")}) == 3


@pytest.mark.parametrize("text", ["", "zz", "ab" * 31, "ab" * 33])
def test_a_malformed_key_file_is_refused_by_its_name(tmp_path: Path, text: str) -> None:
    (tmp_path / "key").write_text(text)
    with pytest.raises(SecretError, match="key"):
        read_key(tmp_path / "key")
    with pytest.raises(SecretError, match="none"):
        read_key(tmp_path / "none")


def test_a_key_file_may_end_with_a_newline(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("01" * 32 + "\n")
    assert read_key(tmp_path / "key") == b"\x01" * 32
