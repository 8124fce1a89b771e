"""What `/openapi.json` says beyond what FastAPI reads from the routes and models: errors, keys and headers.

The routers of `serve.api` name these where they define a route; a fuzzer holds the running app against the document.
"""

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import TypeAdapter

from serve.front_door.upload import SEXES, VIEWS
from serve.problems import MEDIA_TYPE, ProblemBody

AUTH_STATUSES = (401, 403, 429, 503)
"""Statuses that any authenticated route may return."""
REQUEST_ID = {"X-Request-Id": {"schema": {"type": "string"}, "required": True}}
BEARER: dict[str, Any] = {"security": [{"bearer": []}]}
ERRORS = {
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


def responses(
    status: int, description: str, *errors: int, model: Any = None, media_types: Sequence[str] = ()
) -> dict[int | str, dict[str, Any]]:
    """Describe the responses of one route, for FastAPI's `responses`.

    Args:
        errors: statuses of `ERRORS` that the route may return.
        model: type of the JSON body; None where the route's return type is the model, or where the body is no JSON.
        media_types: of bodies that are no JSON.
    """
    success: dict[str, Any] = {"description": description, "headers": REQUEST_ID}
    if model is not None:
        success["model"] = model
    if media_types:
        success["content"] = {media_type: {} for media_type in media_types}
    return {status: success, **{error: _error(error) for error in errors}}


def _error(status: int) -> dict[str, Any]:
    retry_after = {"Retry-After": {"schema": {"type": "integer"}, "required": True}}
    return {
        "description": ERRORS[status],
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        "headers": {**REQUEST_ID, **(retry_after if status in (429, 503) else {})},
    }


def describe(app: FastAPI) -> None:
    """Complete the app's document: the schema of errors, how a key is sent, and no 422 of FastAPI's own."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = get_openapi(title=app.title, version=app.version, routes=app.routes)
            problem = TypeAdapter(ProblemBody).json_schema(mode="serialization") | {"title": "Problem"}
            schemas = {**made.get("components", {}).get("schemas", {}), "Problem": problem}
            for operation in (operation for path in made["paths"].values() for operation in path.values()):
                if "application/json" in operation["responses"].get("422", {}).get("content", {}):
                    del operation["responses"][
                        "422"
                    ]  # a malformed request is a 400 here, an unknown id a 404
            for unused in ("HTTPValidationError", "ValidationError"):
                schemas.pop(unused, None)
            made["components"] = {
                "schemas": schemas,
                "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
            }
            app.openapi_schema = made
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]
