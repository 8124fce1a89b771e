"""What makes a request stay with one version: its patient, else its study, else nothing but itself. Pure.

Only keyed hashes leave here: neither the caller's keys nor a file's StudyInstanceUID are kept or logged. Two clients
who use the same key get different ones.
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
    """What the version is drawn by."""

    @property
    def patient(self) -> str | None:
        """Pseudonym of the patient, where the caller named one."""
        return self.key if self.kind == "patient" else None

    def as_assignment(self) -> dict[str, Any]:
        """As the ledger has it: a study's pseudonym too, since its requests are correlated as a patient's are."""
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
    """The stickiest there is.

    Args:
        study_sha256: of a DICOM file's StudyInstanceUID, see `Decoded`; a study key that the caller names goes before
            it. One that is the UID itself counts as that study, also for the study's images that are no DICOM.
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
