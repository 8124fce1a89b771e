"""Versions that answer, err or hang as a test says, behind the front door's attempts."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import numpy as np

from data.imaging.preprocess import Decoded
from serve.classifier.answer import Classified
from serve.front_door.attempts import Attempt, Attempts, InfrastructureError
from serve.front_door.serving_snapshot import ServingSnapshot
from serve.routing.routes import Routes, Target
from tests.cards import card

CARD = card(calibration={"conformal_threshold": 0.05})


ROUTES = Routes(
    model="xray-vit",
    targets=(
        Target(version="1", role="champion", bundle_key="b/1"),
        Target(version="2", role="canary", bundle_key="b/2"),
    ),
)


SNAPSHOT = ServingSnapshot(routes={"xray-vit": ROUTES}, cards={"1": CARD, "2": CARD})


CANARY = ROUTES.target("2")


IMAGE = Decoded(shown_HW=np.zeros((80, 80), np.uint8), kind="png", width=80, height=80)


EVEN = np.full(10, 0.1)


Answers = Callable[[], Awaitable[np.ndarray]]


async def sound() -> np.ndarray:
    return EVEN


class Models:
    def __init__(self, champion: Answers, canary: Answers) -> None:
        self.by_version = {"1": champion, "2": canary}
        self.asked: list[str] = []
        self.judged: list[bool] = []
        self.absent: set[str] = set()

    async def classify(self, target: Target, pixels_HW: np.ndarray, judged: bool) -> Classified:
        self.asked.append(target.version)
        self.judged.append(judged)
        return Classified(probabilities_C=await self.by_version[target.version]())

    def away(self, target: Target, since_s: float) -> str | None:
        return f"death of {target.version}" if target.version in self.absent else None

    async def crash(self, target: Target) -> None:
        raise InfrastructureError("ActorDiedError at a replica", incident="actor-9")

    async def heat(self, target: Target, pixels_HW: np.ndarray, label: int) -> np.ndarray | None:
        raise AssertionError("not asked for")

    def explain(self, target: Target, finding: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        raise AssertionError("not asked for")


def ask(
    models: Models, times: int = 1, snapshot: ServingSnapshot = SNAPSHOT, **options: Any
) -> list[tuple[str, list[Attempt]]]:
    attempts = Attempts(models, deadline_s=0.4, **options)

    async def all_of_them() -> list[tuple[str, list[Attempt]]]:
        found = []
        for _ in range(times):
            served, tried = await attempts.ask_with_fallback(snapshot, ROUTES, CANARY, IMAGE)
            found.append((served.version, tried))
        return found

    return asyncio.run(all_of_them())
