"""Rollouts on a real PostgreSQL: traffic is written into the ledger as front doors do, the controller does the rest."""

import hashlib
import json
import random
import secrets
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from psycopg import Connection
from psycopg.rows import DictRow

from cluster.database import connect
from data.taxonomy import taxonomy
from serve.canary.guardrails import GuardrailConfig, Step
from serve.control import rollout_store
from serve.control.controller import Controller
from serve.control.label_baseline import label_mix
from serve.control.plan import AT_ONCE, Plan, Rollout
from serve.control.rollout_view import summarise
from serve.control.start import set_traffic
from serve.ledger.rows import INSERTS, Failure, Mirrored, Record
from serve.routing import desired_state
from serve.routing.routes import Routes, assign, mirrors

LABELS = taxonomy().names
QUICK = (
    Step(share=0.0, minutes=0, pairs=20, non_inferior=False),
    Step(share=0.1, minutes=0, requests=20, non_inferior=False),
    Step(share=0.5, minutes=0, requests=100),
    Step(share=1.0, minutes=0, requests=20, non_inferior=False),
)
KEY = "rollout-test"


@dataclass
class Replicas:
    """Replicas that start as the test says; implements `serve.control.controller.ServingBackend`."""

    status: str = "RUNNING"
    woken: int = 0

    def statuses(self) -> dict[str, str]:
        return Always(self.status)

    def wake(self) -> None:
        self.woken += 1


class Always(dict[str, str]):
    """Every application has this status."""

    def __init__(self, status: str) -> None:
        super().__init__()
        self.status = status

    def get(self, name: str, default: Any = None) -> Any:
        return self.status


@dataclass
class Stage:
    """A model of the test's own with version 1 served, and the controller."""

    settings: Any
    connection: Connection[DictRow]
    model: str
    replicas: Replicas = field(default_factory=Replicas)
    draw: random.Random = field(default_factory=lambda: random.Random(0))
    ahead_s: float = 0.0
    """How far the front doors' clock is ahead."""

    def __post_init__(self) -> None:
        self.controller = Controller(self.settings, self.replicas)

    @property
    def routes(self) -> Routes:
        return desired_state.read(self.connection)[self.model]

    def start(self, version: str = "2", **plan: Any) -> Rollout:
        told = {"guardrails": GuardrailConfig(labels=LABELS), "steps": QUICK, **plan}
        return rollout_store.start(
            self.connection,
            model=self.model,
            version=version,
            bundle_key=f"bundles/{version}",
            plan=Plan(**told),
            actor="test",
        )

    def tick(self, times: int = 1) -> None:
        for _ in range(times):
            self.controller.tick(self.connection)

    def now(self, one: Rollout) -> Rollout:
        return rollout_store.get(self.connection, one.id)

    def traffic(
        self,
        requests: int,
        fails: Callable[[str], float] = lambda version: 0.0,
        labels: Callable[[str], tuple[str, ...]] = lambda version: LABELS[:3],
    ) -> None:
        """Requests of as many patients, answered as the routes say; a version fails with this probability."""
        routes, rows = self.routes, {kind: [] for kind in INSERTS}
        for _ in range(requests):
            patient = secrets.token_hex(8)
            assigned = assign(routes, patient)
            failed = self.draw.random() < fails(assigned.version)
            attempts = [self._attempt(assigned.version, failed)]
            assignment = {
                "key": "patient",
                "version": assigned.version,
                "arm": assigned.role,
                "weights": routes.weights,
                "revision": routes.revision,
            }
            shared: dict[str, Any] = {
                "client_key_id": KEY,
                "request_id": secrets.token_hex(16),
                "patient_pseudonym": patient,
                "assignment": assignment,
                "model": self.model,
                "created_at": (datetime.now(UTC) + timedelta(seconds=self.ahead_s)).isoformat(),
            }
            if failed and assigned.version == routes.champion.version:
                one: Any = Failure(id=uuid.uuid4(), attempts=attempts, **shared)
                rows["failure"].append(one.as_row())
                continue
            if failed:
                attempts.append(self._attempt(routes.champion.version, False))
            one = Record(
                id=uuid.uuid4(),
                attempts=attempts,
                body_sha256="0" * 64,
                served_version=attempts[-1]["version"],
                answer={
                    "label": self.draw.choice(labels(attempts[-1]["version"])),
                    "abstained": False,
                },
                image_key="k",
                metadata={},
                **shared,
            )
            rows["prediction"].append(one.as_row())
            for target in mirrors(routes, attempts[-1]["version"], shared["request_id"]):
                shown = self._attempt(target.version, self.draw.random() < fails(target.version))
                pair = Mirrored(
                    id=uuid.uuid4(),
                    model=self.model,
                    patient_pseudonym=patient,
                    assignment=assignment,
                    created_at=shared["created_at"],
                    served={**attempts[-1], "label": LABELS[0]},
                    shown={**shown, "label": LABELS[0] if shown["outcome"] == "ok" else None},
                )
                rows["mirrored"].append(pair.as_row())
        for kind, some in rows.items():
            if some:
                self.connection.execute(INSERTS[kind], [json.dumps(some)])

    def _attempt(self, version: str, failed: bool) -> dict[str, Any]:
        latency_ms = round(20 + 10 * self.draw.random(), 2)
        return {"version": version, "outcome": "model_error" if failed else "ok", "latency_ms": latency_ms}

    def until(self, one: Rollout, done: Callable[[Rollout], bool], **traffic: Any) -> Rollout:
        """Traffic and ticks in turns until it is so."""
        for _ in range(60):
            self.traffic(100, **traffic)
            self.tick()
            found = self.now(one)
            if done(found):
                return found
        raise AssertionError(summarise(self.now(one), self.routes.weights))


@pytest.fixture
def stage(platform: Any) -> Iterator[Stage]:
    settings, model = platform.settings, f"model-{secrets.token_hex(4)}"
    with connect(settings.database_url) as connection:
        connection.execute(
            "INSERT INTO api_keys (key_sha256, key_id, role) VALUES (%s, %s, 'client') ON CONFLICT DO NOTHING",
            [hashlib.sha256(KEY.encode()).hexdigest(), KEY],
        )
        connection.execute(
            "UPDATE rollouts SET ended_at = now(), state = 'rolled_back' WHERE ended_at IS NULL"
        )
        desired_state.cut_over(connection, model=model, version="1", bundle_key="bundles/1", actor="test")
        yield Stage(settings=settings, connection=connection, model=model)


def actions(stage: Stage, one: Rollout) -> list[str]:
    return [event["action"] for event in rollout_store.events(stage.connection, one.id)]


def test_a_good_canary_climbs_step_by_step_and_becomes_the_champion(stage: Stage) -> None:
    one = stage.start()
    assert stage.routes.weights == {"1": 1.0, "2": 0.0}
    stage.tick()
    assert (stage.now(one).state, stage.routes.target("2").mirror) == ("running", 1.0)
    done = stage.until(one, lambda found: found.ended_at is not None)
    assert done.state == "promoted"
    assert (stage.routes.champion.version, stage.routes.target("1").role) == ("2", "previous")
    assert actions(stage, one) == ["start", "step", "step", "step", "step", "promote"]
    shares = [event["weights"]["2"] for event in rollout_store.events(stage.connection, one.id)]
    assert shares == [0.0, 0.0, 0.1, 0.5, 1.0, 1.0]
    assert done.aliases_wait  # the registry is told by the thread that nobody waits for


def test_a_canary_that_errs_is_out_and_the_event_says_why(stage: Stage) -> None:
    one = stage.start()
    stage.until(one, lambda found: found.step == 1)
    done = stage.until(
        one, lambda found: found.ended_at is not None, fails=lambda version: 0.3 if version == "2" else 0.0
    )
    assert done.state == "rolled_back"
    assert stage.routes.weights == {"1": 1.0, "2": 0.0}
    last = rollout_store.events(stage.connection, one.id)[-1]
    assert (last["action"], last["actor"]) == ("roll_back", "controller")
    assert "the canary is worse than the champion" in last["why"]
    assert "errors" in last["why"]
    assert last["evidence"]["action"] == "roll_back"


def test_where_both_err_alike_nobody_is_blamed(stage: Stage) -> None:
    one = stage.start(steps=(Step(share=0.5, minutes=0, requests=100_000),))
    stage.tick()
    for _ in range(30):
        stage.traffic(100, fails=lambda version: 0.015)
        stage.tick()
    assert stage.now(one).state == "running"


DRIFTING = (Step(share=0.5, minutes=0, requests=100_000),)


def watching(stage: Stage) -> GuardrailConfig:
    """With the mix of labels that the champion gives before the rollout."""
    stage.traffic(400)
    mix = label_mix(stage.connection, model=stage.model, version="1", labels=LABELS, least_patients=400)
    assert mix is not None
    return GuardrailConfig(labels=LABELS, label_shares=mix)


def test_the_mix_of_labels_is_of_patients_and_unknown_while_there_are_few(stage: Stage) -> None:
    stage.traffic(60)
    of = {"model": stage.model, "version": "1", "labels": LABELS}
    mix = label_mix(stage.connection, **of, least_patients=60)
    assert mix is not None
    assert sum(mix.values()) == pytest.approx(1)
    assert {label for label, share in mix.items() if share} == set(LABELS[:3])
    assert label_mix(stage.connection, **of, least_patients=61) is None


def test_drift_of_the_canary_alone_rolls_it_back(stage: Stage) -> None:
    one = stage.start(steps=DRIFTING, guardrails=watching(stage))
    done = stage.until(
        one,
        lambda found: found.ended_at is not None,
        labels=lambda version: LABELS[3:5] if version == "2" else LABELS[:3],
    )
    assert done.state == "rolled_back"
    assert "drift" in rollout_store.events(stage.connection, one.id)[-1]["why"]
    assert wishes(stage) == []


def test_drift_in_both_arms_freezes_the_ramp_and_asks_for_one_training(stage: Stage) -> None:
    guardrails = watching(stage)
    for version in ("2", "3"):
        one = stage.start(version, steps=DRIFTING, guardrails=guardrails)
        stage.tick()
        for _ in range(3):
            stage.traffic(150, labels=lambda version: LABELS[3:5])
            stage.tick()
            stage.ahead_s += 60  # the mix is looked at once a minute
        found = stage.now(one)
        assert (found.state, found.verdict["action"], found.verdict["retrain"]) == ("running", "freeze", True)
        assert "freeze" in actions(stage, one)
        rollout_store.request(stage.connection, one.id, "rollback", actor="test")
        stage.tick()
    (wanted,) = wishes(stage)  # the second rollout found the first one's wish
    assert "drift" in wanted["why"]
    assert (
        actions(stage, rollout_store.get(stage.connection, wanted["rollout_id"])).count("retrain_wanted") == 1
    )


def wishes(stage: Stage) -> list[DictRow]:
    return stage.connection.execute(
        "SELECT * FROM retraining_wishes WHERE model = %s", [stage.model]
    ).fetchall()


def test_another_controller_goes_on_with_the_same_evidence(stage: Stage) -> None:
    one = stage.start(steps=(Step(share=0.5, minutes=0, requests=100_000),))
    stage.tick()
    for _ in range(3):
        stage.traffic(50)
        stage.tick()
    before = stage.now(one)
    stage.controller = Controller(stage.settings, stage.replicas)
    stage.tick()
    after = stage.now(one)
    assert after.evidence == before.evidence
    assert after.cursor >= before.cursor
    stage.traffic(50)
    stage.tick()
    counted = stage.now(one).verdict["missing"]["requests"]
    assert counted < after.verdict["missing"]["requests"]


def test_what_is_missing_is_said_and_a_promotion_never_comes_from_silence(stage: Stage) -> None:
    one = stage.start()
    stage.tick(5)
    found = summarise(stage.now(one), stage.routes.weights)
    assert (found["state"], found["verdict"]) == ("running", "wait")
    assert found["missing"]["pairs"] == 20
    assert "20 more mirrored images" in found["why"]


@pytest.mark.parametrize("status", ["DEPLOY_FAILED", "UNHEALTHY"])
def test_a_version_that_does_not_start_never_gets_a_key(stage: Stage, status: str) -> None:
    stage.replicas.status = status
    one = stage.start()
    stage.tick()
    assert stage.now(one).state == "rolled_back"
    assert status in rollout_store.events(stage.connection, one.id)[-1]["why"]


def test_a_version_that_is_never_ready_is_given_up(stage: Stage) -> None:
    stage.replicas.status = "DEPLOYING"
    one = stage.start(ready_s=0.001)
    stage.tick()
    assert "were not ready after 0 s: DEPLOYING" in rollout_store.events(stage.connection, one.id)[-1]["why"]


def test_a_pause_stops_the_ramp_and_not_the_guardrails(stage: Stage) -> None:
    one = stage.start()
    stage.until(one, lambda found: found.step == 1)
    rollout_store.request(stage.connection, one.id, "pause", actor="op")
    for _ in range(10):
        stage.traffic(100)
        stage.tick()
    paused = stage.now(one)
    assert (paused.state, paused.step, paused.verdict["action"]) == ("paused", 1, "promote")
    stage.until(one, lambda found: found.state == "rolled_back", fails=lambda version: 0.5 * (version == "2"))


def test_operators_resume_promote_and_roll_back(stage: Stage) -> None:
    one = stage.start()
    stage.tick()
    for wanted, state, step in (("pause", "paused", 0), ("resume", "running", 0), ("promote", "running", 1)):
        rollout_store.request(stage.connection, one.id, wanted, actor="op")  # type: ignore[arg-type]
        stage.tick()
        assert (stage.now(one).state, stage.now(one).step, stage.now(one).wish) == (state, step, None)
    rollout_store.request(stage.connection, one.id, "rollback", actor="op")
    stage.tick()
    assert (stage.now(one).state, stage.routes.weights["1"]) == ("rolled_back", 1.0)
    assert actions(stage, one)[-1] == "roll_back"
    with pytest.raises(rollout_store.RolloutError, match="is over: rolled_back"):
        rollout_store.request(stage.connection, one.id, "promote", actor="op")
    with pytest.raises(rollout_store.NoRolloutError, match="there is no rollout 0"):
        rollout_store.request(stage.connection, 0, "promote", actor="op")


def test_weights_by_hand_wait_for_replicas_and_then_pause_the_rollout(stage: Stage) -> None:
    one = stage.start()
    with pytest.raises(rollout_store.RolloutError, match="still starts the replicas of version 2"):
        set_traffic(stage.connection, stage.model, {"2": 0.8}, actor="op")
    assert stage.routes.weights["2"] == 0
    stage.controller.tick(stage.connection)
    assert rollout_store.get(stage.connection, one.id).state == "running"
    set_traffic(stage.connection, stage.model, {"2": 0.8}, actor="op")
    assert stage.routes.weights["2"] == 0.8
    assert rollout_store.get(stage.connection, one.id).state == "paused"


def test_a_third_version_takes_the_place_of_the_second(stage: Stage) -> None:
    one = stage.start()
    stage.until(one, lambda found: found.step == 1)
    with pytest.raises(rollout_store.RolloutError, match="is being rolled out already"):
        stage.start()
    other = stage.start("3")
    assert (stage.now(one).state, stage.routes.weights) == ("rolled_back", {"1": 1.0, "2": 0.0, "3": 0.0})
    rollout_store.remove_finished_canaries(stage.connection)
    assert [target.version for target in stage.routes.targets] == ["1", "3"]
    stage.until(other, lambda found: found.state == "promoted")


def test_a_version_that_was_rolled_back_is_started_again_at_once(stage: Stage) -> None:
    first = stage.start()
    stage.tick()
    rollout_store.roll_back(stage.connection, first, actor="test", why="cancelled")
    second = stage.start()
    rollout_store.remove_finished_canaries(stage.connection)  # it comes late: the version is wanted again
    stage.tick()
    assert stage.now(second).state == "running"
    assert stage.routes.target("2").role == "canary"
    rollout_store.roll_back(stage.connection, second, actor="test", why="cancelled")
    rollout_store.remove_finished_canaries(stage.connection)
    assert [one.version for one in stage.routes.targets] == ["1"]


def test_a_promoted_version_is_rolled_back_to_the_one_that_was_kept_warm(stage: Stage) -> None:
    one = stage.start(steps=AT_ONCE)
    stage.until(one, lambda found: found.state == "promoted")
    back = rollout_store.request(stage.connection, one.id, "rollback", actor="op")
    assert (back.id != one.id, back.version, back.champion) == (True, "1", "2")
    stage.tick(3)
    assert stage.now(back).state == "promoted"
    assert stage.routes.weights == {"2": 0.0, "1": 1.0}


def test_who_has_been_the_champion_is_remembered(stage: Stage) -> None:
    one = stage.start(steps=AT_ONCE)
    assert not desired_state.was_champion(stage.connection, stage.model, "2")
    stage.until(one, lambda found: found.state == "promoted")
    assert desired_state.was_champion(stage.connection, stage.model, "2")


def test_events_cannot_be_changed_after(stage: Stage) -> None:
    stage.start()
    with pytest.raises(Exception, match="append-only"):
        stage.connection.execute("DELETE FROM rollout_events")


def test_the_champion_is_no_canary(stage: Stage) -> None:
    with pytest.raises(rollout_store.RolloutError, match="is the champion already"):
        stage.start("1")


def test_a_rollout_whose_evidence_is_of_no_use_is_rolled_back_and_holds_no_other_up(stage: Stage) -> None:
    one = stage.start()
    stage.tick(2)
    kept = stage.now(one).evidence
    assert kept is not None
    kept["wealth"]["rows"] = {}
    stage.connection.execute("UPDATE rollouts SET evidence = %s WHERE id = %s", [json.dumps(kept), one.id])
    stage.controller = Controller(stage.settings, stage.replicas)
    stage.tick()
    assert stage.now(one).state == "rolled_back"
    assert (
        "it cannot go on: this evidence was gathered"
        in rollout_store.events(stage.connection, one.id)[-1]["why"]
    )
