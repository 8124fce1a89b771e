"""Alerts against a real HTTP server on loopback."""

from typing import Any

import pytest

from cluster import alerts
from cluster.alerts import ATTEMPTS, send
from cluster.settings import Settings, SettingsError
from tests.bare_settings import bare_settings


def settings(webhook: str | None) -> Settings:
    return bare_settings(alert_webhook=webhook)


def test_an_alert_arrives_as_json(listen: Any) -> None:
    webhook = listen(204)
    delivery = send(settings(webhook.url), "dataset_halted", "half of it is white", {"dataset_version": "v1"})
    assert (delivery.delivered, delivery.attempts, str(delivery)) == (True, 1, "delivered")
    (body,) = webhook.bodies
    assert {name: body[name] for name in ("source", "event", "text", "dataset_version")} == {
        "source": "raydiology",
        "event": "dataset_halted",
        "text": "half of it is white",
        "dataset_version": "v1",
    }


def test_a_webhook_that_stumbles_is_asked_again_and_each_pause_is_longer(listen: Any) -> None:
    webhook, pauses = listen(503, 429, 200), []
    delivery = send(settings(webhook.url), "e", "s", {}, wait=pauses.append)
    assert (delivery.delivered, delivery.attempts, len(webhook.bodies)) == (True, 3, 3)
    assert pauses == [alerts.BACKOFF_S, 2 * alerts.BACKOFF_S]


@pytest.mark.parametrize(("code", "attempts"), [(400, 1), (302, 1), (500, ATTEMPTS)])
def test_an_alert_that_is_not_taken_is_logged_without_the_address(
    listen: Any, caplog: pytest.LogCaptureFixture, code: int, attempts: int
) -> None:
    webhook = listen(code)
    delivery = send(settings(webhook.url), "e", "s", {}, wait=lambda _: None)
    assert (delivery.delivered, delivery.attempts) == (False, attempts)
    assert str(delivery) == f"not delivered: the webhook answered {code}"
    assert f"the webhook answered {code}" in caplog.text
    assert "geheim" not in caplog.text


def test_a_webhook_that_is_away_raises_nothing(caplog: pytest.LogCaptureFixture) -> None:
    delivery = send(settings("http://127.0.0.1:9/geheim"), "e", "s", {}, wait=lambda _: None)
    assert (delivery.delivered, delivery.attempts) == (False, ATTEMPTS)
    assert "ConnectError" in delivery.why
    assert "geheim" not in caplog.text + str(delivery)


def test_without_a_webhook_it_is_said(caplog: pytest.LogCaptureFixture) -> None:
    delivery = send(settings(None), "e", "s", {})
    assert (delivery.delivered, delivery.attempts) == (False, 0)
    assert caplog.text.count("RAYDIOLOGY_ALERT_WEBHOOK is not set") == 1


def test_an_address_that_is_none_is_refused_without_being_shown() -> None:
    with pytest.raises(SettingsError, match="RAYDIOLOGY_ALERT_WEBHOOK is no http address") as caught:
        settings("ftp://geheim")
    assert "geheim" not in str(caught.value)
    assert "geheim" not in repr(settings("http://geheim"))
