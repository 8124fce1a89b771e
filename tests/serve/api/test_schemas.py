"""Every response is what its type and the OpenAPI document say."""

from typing import Any

import jsonschema_rs
import pytest
from pydantic import TypeAdapter

from serve.api.schemas import Health, Readiness
from serve.front_door.prediction import Explanation, Prediction
from serve.problems import ProblemBody
from serve.routing.routes import Routes, Target, add, set_weights
from tests.serve.api.door import answers

ROUTES = Routes(model="xray-vit", targets=(Target(version="1", role="champion", bundle_key="bundles/1"),))


RAMPING = set_weights(add(ROUTES, "2", "bundles/2"), {"2": 0.999})


@pytest.mark.parametrize("routes", [ROUTES, RAMPING], ids=["champion", "fallback"])
def test_each_body_is_exactly_what_its_type_and_the_document_say(routes: Routes) -> None:
    responses = answers(routes)
    types: dict[str, tuple[str, Any]] = {
        "posted": ("Prediction", Prediction),
        "stored": ("Prediction", Prediction),
        "explanation": ("Explanation", Explanation),
        "problem": ("Problem", ProblemBody),
        "health": ("Health", Health),
        "readiness": ("Readiness", Readiness),
    }
    for name, (schema, kind) in types.items():
        body = responses[name].json()
        assert (
            TypeAdapter(kind).validate_python(body, strict=True) == body
        )  # a field that no type has is dropped
        document = responses["document"].json()
        jsonschema_rs.validator_for({"$ref": f"#/components/schemas/{schema}", **document}).validate(body)
    assert responses["posted"].status_code == 201
    assert ("fallback_from" in responses["posted"].json()) == (routes is RAMPING)
    assert responses["stored"].json()["explanation"] == responses["explanation"].json()
