import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from cluster.releases import signatures
from cluster.releases.signatures import SignatureError, generate, public_half, sign, verify


@dataclass(frozen=True)
class Pair:
    private: Path
    public: Path


def written(folder: Path) -> Pair:
    pair = Pair(folder / "signing_key.pem", folder / "verifying_key.pem")
    folder.mkdir(exist_ok=True)
    for path, text in zip((pair.private, pair.public), generate(), strict=True):
        path.write_text(text)
    return pair


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return written(tmp_path / "ours")


def test_what_was_signed_is_verified_and_one_byte_more_is_not(pair: Pair) -> None:
    signature = sign(b"content", pair.private)
    verify(b"content", signature, pair.public)
    with pytest.raises(SignatureError, match="of another content"):
        verify(b"content!", signature, pair.public)


def test_a_signature_of_another_key_is_refused(pair: Pair, tmp_path: Path) -> None:
    theirs = written(tmp_path / "theirs")
    with pytest.raises(SignatureError, match="signed with another key"):
        verify(b"content", sign(b"content", theirs.private), pair.public)


def test_a_signature_that_names_our_key_and_is_not_made_with_it_is_refused(
    pair: Pair, tmp_path: Path
) -> None:
    theirs = written(tmp_path / "theirs")
    ours, forged = (json.loads(sign(b"content", one.private)) for one in (pair, theirs))
    forged["verificationMaterial"] = ours["verificationMaterial"]
    with pytest.raises(SignatureError, match="changed, or made with another key"):
        verify(b"content", json.dumps(forged).encode(), pair.public)


@pytest.mark.parametrize(
    "signature", [b"", b"{}", b"[]", b"not json", b"\xff\xfe", b'{"verificationMaterial": 1}', b"[" * 100_000]
)
def test_what_is_no_signature_is_refused(pair: Pair, signature: bytes) -> None:
    with pytest.raises(SignatureError, match="its signature is damaged"):
        verify(b"content", signature, pair.public)


def test_a_key_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    lost = tmp_path / "lost.pem"
    with pytest.raises(SignatureError, match=r"lost\.pem cannot be used"):
        sign(b"content", lost)
    with pytest.raises(
        SignatureError, match=r"lost\.pem, which signatures are verified with, cannot be read"
    ):
        verify(b"content", b"", lost)
    with pytest.raises(SignatureError, match=r"lost\.pem cannot be read"):
        public_half(lost)


def test_the_public_half_is_that_of_the_pair(pair: Pair) -> None:
    assert public_half(pair.private) == pair.public.read_text()


def test_the_standard_tool_verifies_what_we_sign(pair: Pair, tmp_path: Path) -> None:
    from model_signing import verifying

    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / signatures.SIGNED_NAME).write_bytes(b"content")
    (folder / "weights.txt").write_text("named by the signed file")
    (folder / "signature").write_bytes(sign(b"content", pair.private))
    config = verifying.Config().use_elliptic_key_verifier(public_key=pair.public)
    config.set_ignore_unsigned_files(True).verify(folder, folder / "signature")
