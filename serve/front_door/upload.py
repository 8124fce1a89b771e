"""Parse and check the multipart body of `POST /v1/predictions`: the file and the optional fields.

An upload stays in memory, within the limit that the app set; nothing touches the disk.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from serve.problems import Problem

MAX_FIELD_BYTES = 16 * 1024
SEXES = ("F", "M")
VIEWS = ("PA", "AP", "LATERAL", "OTHER")
FIELDS = ("patient_key", "study_key", "sex", "age", "view", "metadata")


@dataclass(frozen=True, kw_only=True)
class Upload:
    blob: bytes
    patient_key: str | None
    """The caller's own key for the patient; only its keyed hash is kept."""
    study_key: str | None
    """The caller's own key for the study, for requests without a patient; only its keyed hash is kept."""
    sex: str | None
    age: float | None
    """Years, 0 to 130."""
    view: str | None
    metadata: dict[str, Any] | None
    """The caller's own JSON object; sealed before it is stored."""

    def sha256(self, version: str | None) -> str:
        """Hash all that the caller sent, and the version that an operator chose."""
        given = [self.patient_key, self.sex, self.age, self.view, self.metadata]
        given += [] if self.study_key is None else [self.study_key]
        fields = json.dumps(given + ([] if version is None else [{"version": version}]), sort_keys=True)
        return hashlib.sha256(hashlib.sha256(self.blob).digest() + fields.encode()).hexdigest()


async def parse(request: Request, limit_bytes: int) -> Upload:
    """Read a multipart body.

    Raises:
        Problem: 400 with the field that is wrong and what it takes.
    """
    content_type = request.headers.get("content-type", "")
    if not content_type.lower().startswith("multipart/form-data"):
        raise Problem(400, "send multipart/form-data with the image in the field `file`")
    _, options = parse_options_header(content_type)
    if options.get(b"charset", b"utf-8").lower() not in (b"utf-8", b"utf8"):
        raise Problem(400, "send multipart/form-data in UTF-8, and name no other charset")
    parser = MultiPartParser(
        request.headers, request.stream(), max_files=1, max_fields=len(FIELDS), max_part_size=MAX_FIELD_BYTES
    )
    parser.spool_max_size = limit_bytes + 1
    try:
        form = await parser.parse()
    except ClientDisconnect as error:
        raise Problem(400, "the upload ended before it was whole") from error
    except (MultiPartException, KeyError, UnicodeError) as error:
        raise Problem(
            400,
            f"the multipart body is malformed: send one `file` and at most the fields {', '.join(FIELDS)}",
        ) from error
    try:
        names = [name for name, _ in form.multi_items()]
        if not {*names} <= {"file", *FIELDS} or len(names) > len({*names}):
            raise Problem(400, f"send one `file` and at most one each of the fields {', '.join(FIELDS)}")
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise Problem(400, "the field `file` is missing or is not a file")
        blob = await file.read()
        fields = {name: _text(form.get(name), name) for name in FIELDS}
    finally:
        await form.close()
    return Upload(
        blob=blob,
        patient_key=fields["patient_key"],
        study_key=fields["study_key"],
        sex=_one_of(fields["sex"], "sex", SEXES),
        age=_age(fields["age"]),
        view=_one_of(fields["view"], "view", VIEWS),
        metadata=_json_object(fields["metadata"]),
    )


def _text(value: object, name: str) -> str | None:
    if isinstance(value, UploadFile):
        raise Problem(400, f"the field `{name}` takes text, not a file")
    return str(value).strip() or None if value is not None else None


def _one_of(value: str | None, name: str, allowed: tuple[str, ...]) -> str | None:
    if value is not None and value.upper() not in allowed:
        raise Problem(400, f"the field `{name}` takes one of {', '.join(allowed)}, or nothing")
    return value.upper() if value is not None else None


def _age(value: str | None) -> float | None:
    if value is None:
        return None
    try:
        age = float(value)
    except ValueError:
        age = -1.0
    if not 0 <= age <= 130:
        raise Problem(400, "the field `age` takes years from 0 to 130, or nothing")
    return age


def _no_number(name: str) -> None:
    """Refuse NaN and Infinity, which Python reads and JSON does not have."""
    raise ValueError(name)


def _json_object(value: str | None) -> dict[str, Any] | None:
    if value is None:
        return None
    try:
        parsed = json.loads(value, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise Problem(400, "the field `metadata` takes a JSON object, or nothing") from error
    if not isinstance(parsed, dict):
        raise Problem(400, "the field `metadata` takes a JSON object, or nothing")
    return parsed
