"""Versions that fail in every way, asked through the real code with models in this process."""

import asyncio
from dataclasses import replace

import numpy as np
import pytest

from data.imaging.preprocess import Decoded, PixelConfig
from serve.classifier.answer import Classified
from serve.front_door.attempts import Attempt, Attempts, InfrastructureError, ModelError, NobodyAnsweredError
from serve.front_door.circuit_breaker import CircuitBreakerConfig
from serve.routing.routes import Target
from tests.cards import OUTLIERS
from tests.serve.models import CANARY, CARD, EVEN, IMAGE, ROUTES, SNAPSHOT, Answers, Models, ask, sound


async def raising() -> np.ndarray:
    raise ModelError("RuntimeError at a replica")


async def dead() -> np.ndarray:
    raise InfrastructureError("ActorDiedError at a replica", incident="actor-7")


async def gone() -> np.ndarray:
    raise InfrastructureError("DeploymentUnavailableError at a replica")


async def hanging() -> np.ndarray:
    await asyncio.sleep(60)
    raise AssertionError("nobody waits so long")


async def nonsense() -> np.ndarray:
    return EVEN * 2


@pytest.mark.parametrize(
    ("canary", "outcome"),
    [
        (raising, "model_error"),
        (hanging, "deadline"),
        (nonsense, "invalid_output"),
        (dead, "infrastructure"),
        (gone, "infrastructure"),
    ],
)
def test_whatever_a_canary_does_the_champion_answers_and_the_attempt_is_told(
    canary: Answers, outcome: str
) -> None:
    [(served, attempts)] = ask(Models(sound, canary))
    assert served == "1"
    assert [(one.version, one.outcome) for one in attempts] == [("2", outcome), ("1", "ok")]
    assert attempts[1].answer is not None
    assert (attempts[0].incident is not None) == (outcome == "infrastructure")


def test_a_sound_canary_answers_alone() -> None:
    models = Models(sound, sound)
    [(served, attempts)] = ask(models)
    assert models.judged == [False], "a card without a rule: its code may take no such argument"
    assert (served, len(attempts), attempts[0].as_row()["outcome"]) == ("2", 1, "ok")


def test_what_is_doubtful_about_the_image_or_strange_to_the_model_reaches_the_answer() -> None:
    judging = replace(CARD, outliers=OUTLIERS)

    class Judging(Models):
        async def classify(self, target: Target, pixels_HW: np.ndarray, judged: bool) -> Classified:
            assert judged, "a card with a rule for strangeness is never asked without it"
            return Classified(probabilities_C=EVEN, strangeness=2.0)

    def reason(image: Decoded, side: int = 64) -> tuple[str | None, tuple[str, ...]]:
        card = replace(judging, pixels=PixelConfig(side=side))
        snapshot = replace(SNAPSHOT, cards={"1": card, "2": card})
        attempts = Attempts(Judging(sound, sound), deadline_s=0.4)
        told = asyncio.run(attempts.ask_version(snapshot, CANARY, image, 0.4)).answer
        assert told is not None
        return told.abstained_reason, told.concerns

    assert reason(IMAGE) == ("out_of_distribution", ())
    assert reason(replace(IMAGE, concerns=("blurred",))) == ("quality", ("blurred",))
    assert reason(IMAGE, side=176) == ("quality", ("small",))


def test_the_death_of_a_process_is_one_incident_however_many_requests_it_took() -> None:
    told = ask(Models(sound, dead), times=3)
    assert {attempts[0].incident for _, attempts in told} == {"actor-7"}


def test_a_dead_canary_is_no_longer_asked_and_comes_back_by_itself() -> None:
    models = Models(sound, gone)
    config = CircuitBreakerConfig(failures=2, open_s=0.2)
    attempts = Attempts(models, deadline_s=1, breaker=config)

    async def story() -> list[Attempt]:
        tried = [(await attempts.ask_with_fallback(SNAPSHOT, ROUTES, CANARY, IMAGE))[1][0] for _ in range(6)]
        models.by_version["2"] = sound
        await asyncio.sleep(0.25)
        return tried + [
            (await attempts.ask_with_fallback(SNAPSHOT, ROUTES, CANARY, IMAGE))[1][0] for _ in range(2)
        ]

    tried = asyncio.run(story())
    assert models.asked.count("2") == 4  # two that opened it, none for a while, two that were answered
    assert [one.outcome for one in tried] == ["infrastructure"] * 6 + ["ok"] * 2


def test_the_champion_is_asked_even_when_it_was_silent() -> None:
    models = Models(gone, sound)
    attempts = Attempts(models, deadline_s=1, breaker=CircuitBreakerConfig(failures=1, open_s=60))

    async def twice() -> None:
        for _ in range(2):
            with pytest.raises(NobodyAnsweredError):
                await attempts.ask_with_fallback(SNAPSHOT, ROUTES, ROUTES.champion, IMAGE)

    asyncio.run(twice())
    assert models.asked == ["1", "1"] * 2


def test_a_champion_whose_process_died_under_the_request_is_asked_again() -> None:
    async def dead_once() -> np.ndarray:
        models.by_version["1"] = sound
        return await dead()

    models = Models(dead_once, sound)
    attempts = Attempts(models, deadline_s=1)
    served, tried = asyncio.run(attempts.ask_with_fallback(SNAPSHOT, ROUTES, ROUTES.champion, IMAGE))
    assert served.version == "1"
    assert [one.outcome for one in tried] == ["infrastructure", "ok"]


def test_a_champion_that_erred_is_not_asked_again() -> None:
    models = Models(raising, sound)
    with pytest.raises(NobodyAnsweredError):
        asyncio.run(
            Attempts(models, deadline_s=1).ask_with_fallback(SNAPSHOT, ROUTES, ROUTES.champion, IMAGE)
        )
    assert models.asked == ["1"]


def test_a_canary_without_a_process_is_passed_over_at_once_and_it_is_no_error_of_its_model() -> None:
    models = Models(sound, hanging)
    models.absent = {"2"}
    [(served, attempts)] = ask(models)
    assert (served, models.asked) == ("1", ["1"])
    assert (attempts[0].outcome, attempts[0].incident) == ("infrastructure", "death of 2")
    assert attempts[0].latency_ms == 0


def test_a_deadline_is_of_infrastructure_where_the_process_went_away_meanwhile() -> None:
    async def leaving() -> np.ndarray:
        models.absent = {"2"}
        return await hanging()

    models = Models(sound, leaving)
    [(served, attempts)] = ask(models)
    assert served == "1"
    assert (attempts[0].outcome, attempts[0].incident) == ("infrastructure", "death of 2")


def test_a_champion_without_a_process_is_waited_for() -> None:
    models = Models(sound, sound)
    models.absent = {"1"}
    served, tried = asyncio.run(
        Attempts(models, deadline_s=1).ask_with_fallback(SNAPSHOT, ROUTES, ROUTES.champion, IMAGE)
    )
    assert (served.version, [one.outcome for one in tried]) == ("1", ["ok"])


def test_where_both_fail_the_caller_is_told_to_come_again_and_both_attempts_are_kept() -> None:
    with pytest.raises(NobodyAnsweredError) as found:
        ask(Models(raising, gone))
    assert [one.outcome for one in found.value.attempts] == ["infrastructure", "model_error"]
    assert found.value.status == 503


def test_both_attempts_stay_within_one_deadline() -> None:
    models = Models(hanging, hanging)
    with pytest.raises(NobodyAnsweredError) as found:
        ask(models)
    assert sum(one.latency_ms for one in found.value.attempts) < 2000
    assert [one.outcome for one in found.value.attempts] == ["deadline", "deadline"]
