"""Answers of the app with everything below it in this process: they are what their types and the document say."""

import json

from serve.routing.routes import Routes, Target
from tests.serve.api.door import answers

ROUTES = Routes(model="xray-vit", targets=(Target(version="1", role="champion", bundle_key="bundles/1"),))


def test_the_stream_ends_with_the_explanation_that_is_stored() -> None:
    responses = answers(ROUTES)
    events = [event.split("\n") for event in responses["streamed"].text.strip().split("\n\n")]
    assert [name for name, _ in events] == ["event: replace", "event: done"]
    replaced, done = (json.loads(data.removeprefix("data: ")) for _, data in events)
    assert done == responses["explanation"].json()
    assert replaced == {"text": done["text"]}
