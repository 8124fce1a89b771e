"""The bodies of a prediction and of an explanation: one type each, for what is answered, stored and documented.

A `TypedDict` is a plain dictionary at run time, so a request costs no validation; mypy holds the code against the type,
OpenAPI is made from it (`serve.api`), and a test holds real answers against it.
"""

import uuid
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NotRequired

from psycopg.rows import DictRow
from pydantic import Field
from typing_extensions import TypedDict

from data.imaging.preprocess import Decoded
from data.taxonomy import taxonomy
from serve.classifier.answer import Answer, Reason
from serve.classifier.triage import Triage
from serve.problems import Problem
from serve.routing.routes import Target


def _enumerate_labels(schema: dict[str, Any]) -> None:
    schema["enum"] = list(taxonomy().names)


def _name_each_label(schema: dict[str, Any]) -> None:
    probability = schema.pop("additionalProperties")
    schema["properties"] = dict.fromkeys(taxonomy().names, probability)
    schema["required"] = list(taxonomy().names)


Label = Annotated[str, Field(json_schema_extra=_enumerate_labels)]
"""A name of `data/taxonomy.yaml`, which is read when the document is made and not at import."""
Probability = Annotated[float, Field(ge=0, le=1)]


class Explanation(TypedDict):
    """What a caller sees of an explanation."""

    text: str
    model: str
    """Name of the language model, or `template`."""
    grounded: Literal[True]
    fallback: bool
    disclaimer: str


def public_explanation(stored: Mapping[str, Any]) -> Explanation:
    """Leave out what is stored of an explanation for its audit alone."""
    return {
        "text": stored["text"],
        "model": stored["model"],
        "grounded": stored["grounded"],
        "fallback": stored["fallback"],
        "disclaimer": stored["disclaimer"],
    }


class ModelVersion(TypedDict):
    name: str
    version: str


class Quality(TypedDict):
    kind: str
    """Type of the file: png, jpeg or dicom."""
    width: int
    """Pixels of the shown image; likewise `height`."""
    height: int
    concerns: list[str]
    """What makes any answer about the image doubtful, see `data.imaging.quality_concerns`."""


class Links(TypedDict):
    """Paths of the prediction itself and of what is made from it."""

    self: str
    explanation: str
    heatmap: str


class Prediction(TypedDict):
    id: Annotated[str, Field(json_schema_extra={"format": "uuid"})]
    label: Label
    probabilities: Annotated[dict[str, Probability], Field(json_schema_extra=_name_each_label)]
    confidence: Probability
    abstained: bool
    abstained_reason: NotRequired[Reason | None]
    """None when not abstained; absent in the oldest records."""
    prediction_set: list[Label]
    triage: Triage
    model: ModelVersion
    arm: Literal["champion", "canary"]
    served_by: str
    fallback_from: NotRequired[str]
    """The assigned version, where another one answered for it."""
    stored: Literal["yes", "pending"]
    quality: Quality
    links: Links
    disclaimer: str
    explanation: NotRequired[Explanation]


def build_prediction(
    prediction_id: uuid.UUID,
    answer: Answer,
    decoded: Decoded,
    *,
    model: str,
    served: Target,
    assigned: Target,
    disclaimer: str,
) -> Prediction:
    """Assemble the body of the 201 and of the record.

    Args:
        served: the version that answered; it differs from `assigned` after a fallback.
    """
    body: Prediction = {
        "id": str(prediction_id),
        "label": answer.label,
        "probabilities": answer.probabilities,
        "confidence": answer.confidence,
        "abstained": answer.abstained,
        "abstained_reason": answer.abstained_reason,
        "prediction_set": answer.prediction_set,
        "triage": answer.triage,
        "model": {"name": model, "version": served.version},
        "arm": "canary" if served.role == "canary" else "champion",
        "served_by": f"{model}-v{served.version}",
        "stored": "yes",
        "quality": {
            "kind": decoded.kind,
            "width": decoded.width,
            "height": decoded.height,
            "concerns": list(answer.concerns),
        },
        "links": {
            "self": f"/v1/predictions/{prediction_id}",
            "explanation": f"/v1/predictions/{prediction_id}/explanation",
            "heatmap": f"/v1/predictions/{prediction_id}/heatmap",
        },
        "disclaimer": disclaimer,
    }
    if served.version != assigned.version:
        body["fallback_from"] = assigned.version
    return body


def uuid8(data: bytes) -> uuid.UUID:
    """Make a UUID of version 8, for vendors' own data, from 16 bytes (RFC 9562, 5.8); built into Python 3.14."""
    value = int.from_bytes(data, "big")
    value = value & ~(0xF << 76) | 8 << 76
    return uuid.UUID(int=value & ~(0b11 << 62) | 0b10 << 62)


def replay(row: DictRow, body_sha256: str) -> Prediction:
    """Return the stored answer to a retry under the same Idempotency-Key.

    Raises:
        Problem: 409 if the earlier request was another one.
    """
    if row["body_sha256"] != body_sha256:
        raise Problem(409, "this Idempotency-Key was used for another request; send a new one")
    body: Prediction = row["answer"]
    return body
