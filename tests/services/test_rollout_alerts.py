"""Operators are told of each freeze, hold and rollback once, by a real webhook."""

import json
import time
from dataclasses import replace
from typing import Any

import pytest

from cluster import alerts
from serve.canary.guardrails import Step
from serve.control import rollout_events, rollout_store
from serve.control.background_sync import BackgroundSync, send_alerts
from serve.control.controller import Controller
from serve.control.plan import Rollout
from tests.services.test_rollouts import LABELS, Stage, stage, watching

__all__ = ["stage"]
LONG = (Step(share=0.5, minutes=0, requests=100_000),)


def freeze(stage: Stage) -> Rollout:
    """A rollout whose input drifts in both arms."""
    rollout = stage.start(steps=LONG, guardrails=watching(stage))
    stage.tick()
    for _ in range(3):
        stage.traffic(150, labels=lambda version: LABELS[3:5])
        stage.tick()
        stage.ahead_s += 60
    assert stage.now(rollout).verdict["action"] == "freeze"
    return rollout


def of(webhook: Any, rollout: Rollout) -> list[dict[str, Any]]:
    return [body for body in webhook.bodies if body["rollout"] == rollout.id]


def test_a_freeze_and_a_rollback_are_told_of_once_each_and_without_patients(
    stage: Stage, listen: Any
) -> None:
    rollout, webhook = freeze(stage), listen(204)
    settings = replace(stage.settings, alert_webhook=webhook.url)
    for _ in range(2):
        send_alerts(settings)
        stage.tick(2)
    rollout_store.request(stage.connection, rollout.id, "rollback", actor="op")
    stage.tick()
    for _ in range(2):
        send_alerts(settings)
    frozen, rolled_back = of(webhook, rollout)
    assert (frozen["event"], rolled_back["event"]) == ("rollout_freeze", "rollout_roll_back")
    assert (frozen["model"], frozen["version"], frozen["champion"]) == (stage.model, "2", "1")
    assert (frozen["step"], frozen["actor"], rolled_back["actor"]) == (1, "controller", "op")
    assert "drift" in frozen["why"]
    assert frozen["why"] in frozen["text"]
    assert set(frozen["weights"]) == {"1", "2"}
    patients = stage.connection.execute(
        "SELECT DISTINCT patient_pseudonym FROM predictions WHERE model = %s", [stage.model]
    ).fetchall()
    sent = json.dumps(webhook.bodies)
    assert patients
    assert not any(row["patient_pseudonym"] in sent for row in patients)


def test_a_freeze_at_which_an_operator_pauses_is_told_of_too(stage: Stage, listen: Any) -> None:
    rollout, webhook = stage.start(steps=LONG, guardrails=watching(stage)), listen(204)
    stage.tick()
    while stage.now(rollout).verdict.get("action") != "freeze":
        stage.traffic(150, labels=lambda version: LABELS[3:5])
        rollout_store.request(stage.connection, rollout.id, "pause", actor="op")
        stage.tick()
        stage.ahead_s += 60
    send_alerts(replace(stage.settings, alert_webhook=webhook.url))
    assert [body["event"] for body in of(webhook, rollout)] == ["rollout_freeze"]


def test_a_webhook_that_is_away_is_given_up_and_noted(
    stage: Stage, listen: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alerts, "BACKOFF_S", 0.01)
    rollout = freeze(stage)
    send_alerts(replace(stage.settings, alert_webhook="http://127.0.0.1:9/geheim"))
    row = stage.connection.execute(
        "SELECT delivery FROM rollout_alerts JOIN rollout_events ON id = event_id WHERE rollout_id = %s",
        [rollout.id],
    ).fetchone()
    assert row is not None
    assert row["delivery"].startswith("not delivered: ConnectError")
    webhook = listen(204)
    send_alerts(replace(stage.settings, alert_webhook=webhook.url))
    assert of(webhook, rollout) == []


def test_an_alert_whose_sender_died_is_sent_by_another_and_an_old_event_by_none(
    stage: Stage, listen: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rollout, webhook = freeze(stage), listen(204)
    settings = replace(stage.settings, alert_webhook=webhook.url)
    assert rollout.id in {row["rollout_id"] for row in rollout_events.claim_alerts(stage.connection)}
    send_alerts(settings)
    assert of(webhook, rollout) == []
    monkeypatch.setattr(rollout_events, "STALE_HOURS", 0)
    monkeypatch.setattr(rollout_events, "AGAIN_MINUTES", 0)
    send_alerts(settings)
    assert of(webhook, rollout) == []
    monkeypatch.undo()
    monkeypatch.setattr(rollout_events, "AGAIN_MINUTES", 0)
    send_alerts(settings)
    assert len(of(webhook, rollout)) == 1


def test_a_thread_of_its_own_sends_them(stage: Stage, listen: Any) -> None:
    webhook = listen(204)
    settings = replace(stage.settings, alert_webhook=webhook.url)
    sync = BackgroundSync(settings)
    stage.controller = Controller(settings, stage.replicas)
    rollout = freeze(stage)
    ends_at = time.monotonic() + 30
    while not of(webhook, rollout):
        assert time.monotonic() < ends_at
        time.sleep(0.2)
    assert sync.alive
    sync.stop()
    assert not sync.alive
