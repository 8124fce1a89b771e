"""Sign small files with an own key and verify them: sigstore's `model-signing`, without the internet.

`cluster.releases.bundles` signs the commit object of each release bundle with it, and so every file that the
commit object names. The key is an elliptic one (P-256) in PEM files: the private half publishes, the public half
loads. Knows nothing of what it signs.
"""

import tempfile
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

SIGNED_NAME = "bundle.json"
"""What the signed file is called inside the signature; `model_signing verify key` looks for it under this name."""


class SignatureError(ValueError):
    """A key is missing or damaged, or a signature does not fit; the message is a clause without a subject."""


def generate() -> tuple[str, str]:
    """Generate a private key and its public half, both PEM."""
    private = ec.generate_private_key(ec.SECP256R1())
    secret = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return secret.decode(), _public_pem(private)


def public_half(private_key: Path) -> str:
    """Return the public key, PEM, of a private key's file.

    Raises:
        SignatureError: there is no such file, or it holds no elliptic private key.
    """
    try:
        private = serialization.load_pem_private_key(private_key.read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        raise SignatureError(f"the signing key {private_key} cannot be read") from error
    if not isinstance(private, ec.EllipticCurvePrivateKey):
        raise SignatureError(f"the signing key {private_key} is no elliptic key")
    return _public_pem(private)


def sign(blob: bytes, private_key: Path) -> bytes:
    """Sign `blob` and return a sigstore bundle, JSON.

    Raises:
        SignatureError: the key cannot be used.
    """
    from model_signing import signing  # a third of a second, spent only when something is signed or verified

    with tempfile.TemporaryDirectory() as folder:
        written, signature = _laid_out(Path(folder), blob)
        try:
            signing.Config().use_elliptic_key_signer(private_key=private_key).sign(written, signature)
        except (OSError, ValueError, TypeError) as error:
            raise SignatureError(f"the signing key {private_key} cannot be used") from error
        return signature.read_bytes()


def verify(blob: bytes, signature: bytes, public_key: Path) -> None:
    """Return when the holder of the key signed exactly `blob`.

    Raises:
        SignatureError: another key, another content, or no signature at all; the message says which.
    """
    from model_signing import verifying

    try:
        verifier = verifying.Config().use_elliptic_key_verifier(public_key=public_key)
    except (OSError, ValueError) as error:
        raise SignatureError(
            f"the key {public_key}, which signatures are verified with, cannot be read"
        ) from error
    with tempfile.TemporaryDirectory() as folder:
        written, place = _laid_out(Path(folder), blob)
        place.write_bytes(signature)
        try:
            verifier.verify(written, place)
        except InvalidSignature as error:
            raise SignatureError("its signature was changed, or made with another key") from error
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
            raise SignatureError(_reason(error)) from error


def _reason(error: Exception) -> str:
    if "Key mismatch" in str(error):
        return "it is signed with another key"
    if "Signature mismatch" in str(error):
        return "its signature is of another content"
    return "its signature is damaged"


def _laid_out(folder: Path, blob: bytes) -> tuple[Path, Path]:
    """Write the file into a folder of its own, which is what the library signs; return it and the signature's path."""
    inner = folder / "signed"
    inner.mkdir()
    (inner / SIGNED_NAME).write_bytes(blob)
    return inner, folder / "signature"


def _public_pem(private: ec.EllipticCurvePrivateKey) -> str:
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    return private.public_key().public_bytes(serialization.Encoding.PEM, spki).decode()
