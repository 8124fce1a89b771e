"""Clients of the drill: requests at a constant rate, whatever the answers take, each retried once with its key.

An open loop: a request is sent when its time has come, not when the one before was answered.
"""

import asyncio
import json
import random
import secrets
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np

RETRY_S = 0.5
TIMEOUT_S = 20.0


@dataclass
class Log:
    """What the clients saw."""

    answers: list[dict[str, Any]] = field(default_factory=list)
    """Of each answered request: id, patient, version, fallback, ms."""
    raw: Counter[str] = field(default_factory=Counter)
    """First tries, by status or by the name of the error."""
    lost: Counter[str] = field(default_factory=Counter)
    """Requests that failed twice."""

    @property
    def sent(self) -> int:
        return sum(self.raw.values())

    def latencies_ms(self) -> dict[str, float]:
        """Return percentiles over the answers that came; a retried request counts with its second try."""
        if not self.answers:
            return {}
        cuts = np.percentile([answer["ms"] for answer in self.answers], [50, 95, 99])
        return {name: round(float(cut), 1) for name, cut in zip(("p50", "p95", "p99"), cuts, strict=True)}

    def write(self, path: Path) -> None:
        path.write_text("".join(json.dumps(answer) + "\n" for answer in self.answers))


class Clients:
    """Sends images from a thread of its own while the drill does what it does."""

    def __init__(
        self, api_url: str, key: str, images: Sequence[bytes], *, rate: float, patients: int, seed: int
    ) -> None:
        """Args:
        rate: requests a second.
        patients: how many there are; each request is of one of them.
        """
        self._api_url, self._key, self._images = api_url, key, images
        self.rate = rate
        """May be changed at any time."""
        self._patients = patients
        self._draw = random.Random(seed)
        self._salt = secrets.token_hex(4)
        self.log = Log()

    async def send(self, over: threading.Event) -> None:
        """Send requests until the drill is over, then wait for those under way."""
        headers = {"Authorization": f"Bearer {self._key}"}
        limits = httpx.Limits(max_connections=200)
        due_s, under_way = time.monotonic(), set()
        async with httpx.AsyncClient(
            base_url=self._api_url, headers=headers, timeout=TIMEOUT_S, limits=limits
        ) as api:
            while not over.is_set():
                task = asyncio.create_task(self._request(api))
                under_way.add(task)
                task.add_done_callback(under_way.discard)
                due_s += 1 / self.rate
                await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            await asyncio.gather(*under_way)

    async def _request(self, api: httpx.AsyncClient) -> None:
        patient = f"{self._salt}-{self._draw.randrange(self._patients)}"
        image, key = self._draw.choice(self._images), secrets.token_hex(16)
        status, body, ms = await self._post(api, patient, image, key)
        self.log.raw[status] += 1
        if status != "201":
            await asyncio.sleep(RETRY_S)
            status, body, ms = await self._post(api, patient, image, key)
        if body is None:
            self.log.lost[status] += 1
            return
        seen = {"id": body["id"], "patient": patient, "version": body["model"]["version"], "ms": round(ms, 1)}
        self.log.answers.append({**seen, "at": time.time(), "fallback_from": body.get("fallback_from")})

    async def _post(
        self, api: httpx.AsyncClient, patient: str, image: bytes, key: str
    ) -> tuple[str, dict[str, Any] | None, float]:
        began_s = time.monotonic()
        try:
            answer = await api.post(
                "/v1/predictions",
                headers={"Idempotency-Key": key},
                data={"patient_key": patient},
                files={"file": ("image", image)},
            )
        except httpx.HTTPError as error:
            return type(error).__name__, None, 0.0
        ms = (time.monotonic() - began_s) * 1000
        return str(answer.status_code), answer.json() if answer.status_code == 201 else None, ms
