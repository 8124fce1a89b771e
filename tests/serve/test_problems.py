"""Problems as they are sent: RFC 9457, without the input."""

import json

from serve.problems import MEDIA_TYPE, Problem, unavailable


def test_a_problem_is_sent_with_its_status_in_words() -> None:
    response = Problem(422, "the image is blank", reason="blank").response("r1")
    assert (response.status_code, response.media_type) == (422, MEDIA_TYPE)
    assert json.loads(bytes(response.body)) == {
        "type": "about:blank",
        "title": "Unprocessable Entity",
        "status": 422,
        "detail": "the image is blank",
        "request_id": "r1",
        "reason": "blank",
    }


def test_a_dependency_that_is_away_says_when_to_come_again_and_has_no_reason() -> None:
    response = unavailable("the database", retry_after_s=3).response("r2")
    assert (response.status_code, response.headers["Retry-After"]) == (503, "3")
    assert "reason" not in json.loads(bytes(response.body))
