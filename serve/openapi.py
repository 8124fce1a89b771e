"""What `/openapi.json` says beyond what FastAPI reads from the routes: answers, errors, keys and headers.

`serve.http_app` names these where it defines a route; a fuzzer holds the running app against them.
"""

from typing import Any, get_args

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from data.taxonomy import taxonomy
from serve.answer import Reason
from serve.upload import SEXES, VIEWS

PROBLEM = "application/problem+json"
REQUEST_ID = {"X-Request-Id": {"schema": {"type": "string"}, "required": True}}
BEARER: dict[str, Any] = {"security": [{"bearer": []}]}
WHY = {
    400: "malformed",
    401: "no key, or one that is unknown or revoked",
    403: "a key of another role",
    404: "no such thing, or another client's",
    409: "in conflict with what is there; `reason` says with what",
    413: "too large; refused before it is read whole",
    415: "no image type that is read here",
    422: "an image that cannot be used; `reason` says why",
    429: "more requests than this key may send; `Retry-After` says when to come again",
    503: "a dependency is away or busy; `Retry-After` says when to come again",
}
UPLOAD: dict[str, Any] = {
    **BEARER,
    "parameters": [
        {
            "name": "Idempotency-Key",
            "in": "header",
            "description": "makes a retry safe: the same key and request give the same answer",
            "schema": {"type": "string", "pattern": "^[!-~]{1,255}$"},
        }
    ],
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "additionalProperties": False,
                    "properties": {
                        "file": {"type": "string", "format": "binary", "description": "PNG, JPEG or DICOM"},
                        "patient_key": {"type": "string", "description": "your key; only its hash is kept"},
                        "study_key": {
                            "type": "string",
                            "description": "likewise; a DICOM file brings its own",
                        },
                        "sex": {"type": "string", "enum": list(SEXES)},
                        "age": {"type": "number", "minimum": 0, "maximum": 130, "description": "years"},
                        "view": {"type": "string", "enum": list(VIEWS)},
                        "metadata": {"type": "string", "description": "a JSON object"},
                    },
                }
            }
        },
    },
}


def schemas() -> dict[str, Any]:
    """Of the bodies, by name."""
    text, label = {"type": "string"}, {"type": "string", "enum": list(taxonomy().names)}
    share = {"type": "number", "minimum": 0, "maximum": 1}
    links = ("self", "explanation", "heatmap")
    explanation = {
        "text": text,
        "model": text,
        "grounded": {"const": True},
        "fallback": {"type": "boolean"},
        "disclaimer": text,
    }
    prediction = {
        "id": {"type": "string", "format": "uuid"},
        "label": label,
        "probabilities": _object(dict.fromkeys(taxonomy().names, share)),
        "confidence": share,
        "abstained": {"type": "boolean"},
        "prediction_set": {"type": "array", "items": label},
        "triage": {"enum": ["routine", "soon", "urgent"]},
        "model": _object({"name": text, "version": text}),
        "arm": {"enum": ["champion", "canary"]},
        "served_by": text,
        "stored": {"enum": ["yes", "pending"]},
        "quality": {"type": "object"},
        "links": _object(dict.fromkeys(links, text)),
        "disclaimer": text,
    }
    optional = {
        "abstained_reason": {"enum": [*get_args(Reason), None]},  # records of before have none
        "fallback_from": text,
        "explanation": {"$ref": "#/components/schemas/Explanation"},
    }
    problem = {"type": text, "title": text, "status": {"type": "integer"}, "detail": text, "request_id": text}
    health = {"status": {"const": "alive"}}
    dependencies = {"type": "object", "additionalProperties": text}
    readiness = {"status": {"enum": ["ready", "degraded", "not ready"]}, "dependencies": dependencies}
    rollout = {
        "id": {"type": "integer"},
        "state": {"enum": ["starting", "running", "paused", "promoted", "rolled_back"]},
        "weights": {"type": "object", "additionalProperties": share},
    }
    return {
        "Rollout": {**_object(rollout), "additionalProperties": True},
        "Rollouts": _object(
            {"rollouts": {"type": "array", "items": {"$ref": "#/components/schemas/Rollout"}}}
        ),
        "Faults": _object({"faults": {"type": "object"}}),
        "Traffic": _object({"model": text, "weights": rollout["weights"]}),
        "Prediction": _object(prediction, optional),
        "Explanation": _object(explanation),
        "Problem": _object(problem, {"reason": text}),
        "Health": _object(health),
        "Readiness": _object(readiness),
    }


def answers(status: int, why: str, content: dict[str, str | None], *problems: int) -> dict[int | str, Any]:
    """Of one route, for FastAPI's `responses`.

    Args:
        content: media type → name of the schema of `schemas`, None where it is no JSON.
        problems: statuses of `WHY` that the route can end in.
    """
    bodies = {
        media: {} if name is None else {"schema": {"$ref": f"#/components/schemas/{name}"}}
        for media, name in content.items()
    }
    found: dict[int | str, Any] = {status: {"description": why, "content": bodies, "headers": REQUEST_ID}}
    error = {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    for one in problems:
        later = (
            {"Retry-After": {"schema": {"type": "integer"}, "required": True}} if one in (429, 503) else {}
        )
        found[one] = {"description": WHY[one], "content": error, "headers": {**REQUEST_ID, **later}}
    return found


def describe(app: FastAPI) -> None:
    """Make the app's document complete: the schemas, and how a key is sent."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = get_openapi(title=app.title, version=app.version, routes=app.routes)
            bodies = made.get("components", {}).get("schemas", {})
            made["components"] = {
                "schemas": bodies | schemas(),
                "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
            }
            for operation in (one for path in made["paths"].values() for one in path.values()):
                unused = operation["responses"].get("422", {}).get("content", {})
                if "application/json" in unused:  # FastAPI's own; a path that is no id is a 404 here
                    del operation["responses"]["422"]
            app.openapi_schema = made
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def _object(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    properties = {**required, **(optional or {})}
    return {"type": "object", "required": list(required), "properties": properties}
