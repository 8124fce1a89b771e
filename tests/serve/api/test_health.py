"""Liveness and readiness of a front door."""

from serve.routing.routes import Routes, Target
from tests.serve.api.door import answers

ROUTES = Routes(model="xray-vit", targets=(Target(version="1", role="champion", bundle_key="bundles/1"),))


def test_a_front_door_without_a_language_model_is_degraded_and_ready() -> None:
    responses = answers(ROUTES)
    assert responses["health"].json() == {"status": "alive"}
    readiness = responses["readiness"]
    assert (readiness.status_code, readiness.json()["status"]) == (200, "degraded")
    assert readiness.json()["dependencies"] == {
        "database": "ok",
        "object_store": "ok",
        "journal": "ok",
        "xray-vit": "ok",
        "xray-llm": "no version is deployed",
    }
