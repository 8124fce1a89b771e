"""What ties a request to one version: its patient, else its study, else only itself. Pure.

Only keyed hashes leave this module: neither the caller's keys nor a file's StudyInstanceUID are stored or logged. The
same key of two clients gives two pseudonyms.
"""

import hashlib
import uuid
from dataclasses import dataclass
from typing import Any, Literal

from cluster.secrets import keyed_hash

Kind = Literal["patient", "study", "request"]


@dataclass(frozen=True, kw_only=True)
class Sticky:
    kind: Kind
    key: str
    """The version is drawn by it."""

    @property
    def patient(self) -> str | None:
        """The patient's pseudonym, if the caller sent a patient key."""
        return self.key if self.kind == "patient" else None

    def as_assignment(self) -> dict[str, Any]:
        """Return the ledger's form: a study's pseudonym too, since its requests are correlated as a patient's are."""
        return {"key": self.kind} | ({"study": self.key} if self.kind == "study" else {})


def sticky(
    *,
    patient_key: str | None,
    study_key: str | None,
    study_sha256: str | None,
    request: uuid.UUID,
    client: str,
    secret: bytes,
) -> Sticky:
    """Choose the stickiest key of a request.

    Args:
        study_sha256: of a DICOM file's StudyInstanceUID, see `Decoded`; the caller's study key takes precedence. A
            study key equal to the UID means that study, so images of it that are no DICOM join it.
        client: id of the API key.
        secret: the pseudonym key.
    """
    if patient_key is not None:
        return Sticky(kind="patient", key=keyed_hash(secret, "patient_key", client, patient_key))
    if study_key is not None:
        study_sha256 = hashlib.sha256(study_key.encode()).hexdigest()
    if study_sha256 is not None:
        return Sticky(kind="study", key=keyed_hash(secret, "study", client, study_sha256))
    return Sticky(kind="request", key=str(request))
