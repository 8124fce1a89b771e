"""The body of a prediction, and what of a stored explanation is public."""

import uuid

from serve.classifier.answer import Answer
from serve.front_door.prediction import Prediction, build_prediction, public_explanation
from serve.routing.routes import Target
from tests.serve.models import IMAGE

CHAMPION = Target(version="1", role="champion", bundle_key="b/1")
CANARY = Target(version="2", role="canary", bundle_key="b/2")
ANSWER = Answer(
    label="normal", probabilities={"normal": 1.0}, confidence=1.0, abstained=False, abstained_reason=None,
    concerns=("blurred",), prediction_set=["normal"], triage="routine",
)  # fmt: skip


def built(served: Target, assigned: Target) -> Prediction:
    return build_prediction(
        uuid.UUID(int=7), ANSWER, IMAGE, model="xray-vit", served=served, assigned=assigned, disclaimer="d"
    )


def test_a_prediction_names_the_version_that_answered_and_links_to_itself() -> None:
    body = built(CANARY, CANARY)
    assert (body["arm"], body["served_by"], body["model"]["version"]) == ("canary", "xray-vit-v2", "2")
    assert "fallback_from" not in body
    assert body["links"]["heatmap"] == f"/v1/predictions/{uuid.UUID(int=7)}/heatmap"
    assert body["quality"] == {"kind": "png", "width": 80, "height": 80, "concerns": ["blurred"]}


def test_a_fallback_names_the_version_that_should_have_answered() -> None:
    body = built(CHAMPION, CANARY)
    assert (body["arm"], body.get("fallback_from")) == ("champion", "2")


def test_the_audit_of_an_explanation_is_not_public() -> None:
    public = {"text": "t", "model": "m", "grounded": True, "fallback": False, "disclaimer": "d"}
    assert public_explanation({**public, "problems": ["loop"]}) == public
