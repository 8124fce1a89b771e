"""PostgreSQL, the object store and front doors go away under load: what was answered is there afterwards, once.

Clients log what they were told; the log is held against the table. Front doors are processes of their own
(`door_process.py`), so that they can be killed.
"""

import asyncio
import io
import os
import random
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from cluster.api_keys import key_sha256
from cluster.database import connect
from cluster.embedded.process import end, identify, marked
from cluster.embedded.state import State
from cluster.objects import ObjectStore

ROOT = Path(__file__).resolve().parents[2]
KEYS = {"client": "a" * 40, "physician": "b" * 40}
PLENTY = 2**30
PAUSE_S = 0.05
"""Of a client between two requests: without it, clients and front door fight for the processor and test no more."""


def png(seed: int = 0) -> bytes:
    buffer = io.BytesIO()
    pixels_HW = np.random.default_rng(seed).integers(0, 255, (64, 64)).astype(np.uint8)
    Image.fromarray(pixels_HW).save(buffer, "PNG")
    return buffer.getvalue()


@dataclass
class Door:
    """A front door in a process, spoken to over HTTP."""

    process: subprocess.Popen[bytes]
    url: str

    def post(self, blob: bytes, key: str | None = None, who: str = "client") -> httpx.Response:
        headers = {"Authorization": f"Bearer {KEYS.get(who, who)}"}
        if key is not None:
            headers["Idempotency-Key"] = key
        return httpx.post(
            f"{self.url}/v1/predictions", files={"file": ("x", blob)}, headers=headers, timeout=30
        )

    def get(self, path: str, who: str = "client") -> httpx.Response:
        headers = {"Authorization": f"Bearer {KEYS[who]}"}
        return httpx.get(self.url + path, headers=headers, timeout=30)

    def ready(self) -> dict[str, Any]:
        answer = httpx.get(f"{self.url}/readyz", timeout=30)
        return {"code": answer.status_code, **answer.json()}

    def warm(self) -> "Door":
        self.wait_until(
            lambda said: {said["dependencies"][one] for one in ("database", "object_store")} == {"ok"}
        )
        return self

    def settle(self) -> None:
        """Until a prediction goes all the way at once; a busy machine may take longer than a deadline."""
        ends_at = time.monotonic() + 60
        while self.post(png()).json()["stored"] != "yes":
            assert time.monotonic() < ends_at
            time.sleep(0.5)

    def wait_until(self, what: Callable[[dict[str, Any]], bool], seconds: float = 60) -> dict[str, Any]:
        ends_at = time.monotonic() + seconds
        while not what(said := self.ready()):
            assert time.monotonic() < ends_at, said
            time.sleep(0.2)
        return said

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@dataclass
class Site:
    """The platform, and the front doors that a test opens on it."""

    platform: Any
    folder: Path
    doors: list[Door] = field(default_factory=list)

    def open_door(self, journal_bytes: int = PLENTY, folder: Path | None = None) -> Door:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        command = [sys.executable, str(ROOT / "tests/services/door_process.py"), str(port)]
        process = subprocess.Popen(
            [*command, str(folder or self.folder), str(journal_bytes)],
            env={**self.platform.env, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            cwd=ROOT,
        )
        door = Door(process, f"http://127.0.0.1:{port}")
        self.doors.append(door)
        ends_at = time.monotonic() + 60
        while True:
            try:
                httpx.get(f"{door.url}/healthz", timeout=5)
                return door
            except httpx.TransportError:
                assert process.poll() is None, "the front door ended"
                assert time.monotonic() < ends_at
                time.sleep(0.1)

    @contextmanager
    def frozen(self, component: str) -> Iterator[None]:
        """Every process of a component stopped, so that it is there and says nothing."""
        pids = [one.pid for one in marked(self.platform.home.id, component)]
        assert pids
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)

    @contextmanager
    def stopped(self, component: str) -> Iterator[None]:
        """A component ended and started again."""
        identity = identify(State.read(self.platform.home).components[component].pid)
        assert identity is not None
        assert end(identity, signal.SIGINT, 30)
        try:
            yield
        finally:
            started = self.platform.command("up")
            assert started.returncode == 0, started.stdout + started.stderr

    def rows(self, ids: list[str]) -> list[dict[str, Any]]:
        with connect(self.platform.settings.database_url) as connection:
            return connection.execute(
                "SELECT * FROM predictions WHERE id = ANY(%s::uuid[])", (ids,)
            ).fetchall()


@pytest.fixture
def site(platform: Any, tmp_path: Path) -> Iterator[Site]:
    with connect(platform.settings.database_url) as connection:
        for role, key in KEYS.items():
            connection.execute(
                "INSERT INTO api_keys (key_sha256, key_id, role) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
                (key_sha256(key), f"away-{role}", role),
            )
    site = Site(platform, tmp_path / "journal")
    yield site
    for door in site.doors:
        door.process.terminate()
        door.process.wait(30)


@dataclass
class Load:
    """Clients that ask again and again and log what they are told; each retries once under its Idempotency-Key."""

    doors: list[Door]
    clients: int = 4
    told: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Idempotency-Key → the body of the 201."""
    raw_failures: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)
    slowest_s: float = 0.0
    _ends_at: float = float("inf")

    async def run(self, during: Callable[[], None]) -> None:
        """Ask until `during`, in a thread, has returned."""
        async with httpx.AsyncClient(timeout=60) as api:
            clients = [asyncio.create_task(self._ask_on(api, number)) for number in range(self.clients)]
            try:
                await asyncio.to_thread(during)
            finally:
                self._ends_at = time.monotonic()
            await asyncio.gather(*clients)

    async def _ask_on(self, api: httpx.AsyncClient, number: int) -> None:
        blob = png(number)
        while time.monotonic() < self._ends_at:
            key = uuid.uuid4().hex
            if not await self._ask(api, key, blob) and not await self._ask(api, key, blob):
                self.failed.append(key)
            await asyncio.sleep(PAUSE_S)

    async def _ask(self, api: httpx.AsyncClient, key: str, blob: bytes) -> bool:
        headers = {"Authorization": f"Bearer {KEYS['client']}", "Idempotency-Key": key}
        started_at = time.monotonic()
        try:
            answer = await api.post(
                f"{random.choice(self.doors).url}/v1/predictions",
                files={"file": ("x", blob)},
                headers=headers,
            )
        except httpx.TransportError as error:
            self.raw_failures[type(error).__name__] += 1
            return False
        self.slowest_s = max(self.slowest_s, time.monotonic() - started_at)
        if answer.status_code != 201:
            self.raw_failures[str(answer.status_code)] += 1
            return False
        self.told[key] = answer.json()
        return True

    def stored(self) -> Counter[str]:
        return Counter(body["stored"] for body in self.told.values())


def hold_against_table(site: Site, load: Load) -> None:
    """Every answer has its one row, complete and with its image; no row is of nobody."""
    told = {body["id"]: body for body in load.told.values()}
    assert len(told) == len(load.told)
    rows = site.rows(list(told))
    assert len(rows) == len(told)
    store = ObjectStore(site.platform.settings)
    for row in rows:
        assert row["answer"] == {**told[str(row["id"])], "stored": "yes"}
    for row in random.Random(0).sample(rows, min(20, len(rows))):
        assert Image.open(io.BytesIO(store.get("predictions", row["image_key"]))).size == (64, 64)


def written_since(site: Site, started_at: float) -> int:
    with connect(site.platform.settings.database_url) as connection:
        row = connection.execute(
            """SELECT count(*) AS n FROM predictions
               WHERE client_key_id = 'away-client' AND created_at >= to_timestamp(%s)""",
            (started_at,),
        ).fetchone()
    assert row is not None
    return int(row["n"])


@pytest.mark.parametrize(
    ("component", "how"), [("postgresql", "frozen"), ("postgresql", "stopped"), ("s3", "frozen")]
)
def test_while_a_store_is_away_no_prediction_fails_and_none_is_lost_or_doubled(
    site: Site, component: str, how: str, request: pytest.FixtureRequest
) -> None:
    away_s = request.config.getoption("--away-s")
    door = site.open_door()
    door.wait_until(lambda said: said["dependencies"]["database"] == "ok")
    began_at = time.time()
    load = Load([door])

    def happens() -> None:
        time.sleep(2)
        with getattr(site, how)(component):
            time.sleep(away_s)
            said = door.ready()
            assert (said["code"], said["status"]) == (200, "degraded")
            assert said["dependencies"][
                "database" if component == "postgresql" else "object_store"
            ].startswith("away")
        time.sleep(4)

    asyncio.run(load.run(happens))
    assert load.raw_failures == {}
    assert load.stored()["pending"] > 0
    assert load.stored()["yes"] > 0
    assert load.slowest_s < 8
    door.warm().wait_until(lambda said: said["dependencies"]["journal"] == "ok")
    hold_against_table(site, load)
    assert written_since(site, began_at) == len(load.told)
    print(f"{component} {how}: {load.stored()}, slowest {load.slowest_s:.2f} s")


def test_what_a_killed_front_door_kept_the_next_one_brings_to_the_database(site: Site) -> None:
    door = site.open_door().warm()
    door.settle()
    with site.frozen("postgresql"):
        answers = [door.post(png(nth)) for nth in range(3)]
        assert [one.json()["stored"] for one in answers] == ["pending"] * 3
        door.kill()
        assert len(list(site.folder.glob("*.journal"))) == 1
    ids = [one.json()["id"] for one in answers]
    assert site.rows(ids[1:]) == []  # the first was on its way when the database froze
    again = site.open_door()
    ends_at = time.monotonic() + 30
    while len(site.rows(ids)) < 3:
        assert time.monotonic() < ends_at
        time.sleep(0.2)
    assert {row["answer"]["stored"] for row in site.rows(ids)} == {"yes"}
    again.wait_until(lambda said: said["dependencies"]["journal"] == "ok")


def test_a_retry_is_the_same_on_another_front_door_of_the_node_and_after_the_first_was_killed(
    site: Site,
) -> None:
    doors = [site.open_door().warm(), site.open_door().warm()]
    for door in doors:
        door.settle()
    key = uuid.uuid4().hex
    with site.frozen("postgresql"):
        first = doors[0].post(png(1), key=key)
        assert first.json()["stored"] == "pending"
        assert doors[0].post(png(1), key=key).json() == first.json()
        assert doors[1].post(png(1), key=key).json() == first.json()
        assert doors[0].post(png(2), key=key).status_code == 409
        assert doors[1].post(png(2), key=key).status_code == 409
        doors[0].kill()
        assert doors[1].post(png(1), key=key).json() == first.json()
        read = doors[1].get(first.json()["links"]["self"])
        assert read.status_code == 200
        assert read.json() == first.json()
    doors[1].wait_until(
        lambda said: said["status"] != "not ready" and said["dependencies"]["database"] == "ok"
    )
    after = doors[1].post(png(1), key=key).json()
    assert {**after, "stored": "pending"} == first.json()
    ends_at = time.monotonic() + 30
    while not site.rows([first.json()["id"]]):
        assert time.monotonic() < ends_at
        time.sleep(0.2)
    assert len(site.rows([first.json()["id"]])) == 1


def test_front_doors_that_are_killed_under_load_while_the_database_comes_and_goes_lose_nothing(
    site: Site,
) -> None:
    doors = [site.open_door().warm(), site.open_door().warm()]
    began_at = time.time()
    load = Load(doors)

    def happens() -> None:
        time.sleep(1)
        with site.frozen("postgresql"):
            time.sleep(3)
            load.doors = doors[1:]
            doors[0].kill()
            time.sleep(1)
        time.sleep(3)
        load.doors = [site.open_door()]
        doors[1].kill()
        time.sleep(3)

    asyncio.run(load.run(happens))
    assert load.failed == [], load.raw_failures
    assert load.stored()["pending"] > 0
    site.doors[-1].wait_until(
        lambda said: said["dependencies"]["journal"] == "ok" and said["dependencies"]["database"] == "ok"
    )
    ends_at = time.monotonic() + 30
    while list(site.folder.glob("*.journal")) and any(
        one.stat().st_size for one in site.folder.glob("*.journal")
    ):
        assert time.monotonic() < ends_at
        time.sleep(0.2)
    told = {body["id"]: body for body in load.told.values()}
    rows = site.rows(list(told))
    assert len(rows) == len(told)
    assert {row["answer"]["stored"] for row in rows} == {"yes"}
    # Requests that were carried out and whose answer did not arrive are there too, under ids that the retry got.
    assert written_since(site, began_at) == len(told)
    print(f"killed doors: {load.stored()}, raw failures {dict(load.raw_failures)}")


def test_with_the_object_store_away_the_row_says_pending_until_the_image_has_arrived(site: Site) -> None:
    door = site.open_door().warm()
    door.settle()
    with site.frozen("s3"):
        answer = door.post(png(1)).json()
        assert answer["stored"] == "pending"
        (row,) = site.rows([answer["id"]])
        assert row["answer"]["stored"] == "pending"
    ends_at = time.monotonic() + 60
    while site.rows([answer["id"]])[0]["answer"]["stored"] != "yes":
        assert time.monotonic() < ends_at
        time.sleep(0.2)
    assert ObjectStore(site.platform.settings).get("predictions", row["image_key"])[:4] == b"\x89PNG"


def test_with_both_away_image_and_row_wait_together_and_the_row_comes_first(site: Site) -> None:
    door = site.open_door().warm()
    door.settle()
    with site.frozen("s3"):
        with site.frozen("postgresql"):
            answer = door.post(png(1)).json()
            assert answer["stored"] == "pending"
        ends_at = time.monotonic() + 60
        while not (rows := site.rows([answer["id"]])):
            assert time.monotonic() < ends_at
            time.sleep(0.2)
        assert rows[0]["answer"]["stored"] == "pending"
    while site.rows([answer["id"]])[0]["answer"]["stored"] != "yes":
        assert time.monotonic() < ends_at
        time.sleep(0.2)
    assert ObjectStore(site.platform.settings).get("predictions", rows[0]["image_key"])[:4] == b"\x89PNG"


def test_a_front_door_that_starts_while_the_database_is_away_knows_the_keys_of_its_node(site: Site) -> None:
    site.open_door().wait_until(lambda said: (site.folder / "api_keys").exists())
    with site.frozen("postgresql"):
        door, elsewhere = site.open_door(), site.open_door(folder=site.folder.with_name("another-node"))
        assert door.post(png()).status_code == 201
        assert door.post(png(), who="unknown").status_code == 503
        assert door.post(png(), who="physician").status_code == 403
        assert door.ready()["code"] == 200
        assert elsewhere.post(png()).status_code == 503
        assert elsewhere.ready()["code"] == 503
    copy = (site.folder / "api_keys").read_text()
    assert key_sha256(KEYS["client"]) not in copy
    assert b"away-client" not in bytes.fromhex(copy)


def test_a_full_journal_is_a_503_with_retry_after_that_says_so(site: Site) -> None:
    door = site.open_door(journal_bytes=6_000).warm()
    assert door.post(png()).status_code == 201
    with site.frozen("postgresql"):
        answers = [door.post(png()) for _ in range(6)]
        kept = [one.json()["id"] for one in answers if one.status_code == 201]
        assert 0 < len(kept) < 6
        assert answers[-1].status_code == 503
        assert "full" in answers[-1].json()["detail"]
        assert int(answers[-1].headers["retry-after"]) > 0
        assert door.ready()["code"] == 503
    ends_at = time.monotonic() + 30
    while len(site.rows(kept)) < len(kept):
        assert time.monotonic() < ends_at
        time.sleep(0.2)
    door.settle()
    assert door.ready()["code"] == 200


def test_a_revoked_key_stops_and_a_new_one_works_at_once(site: Site) -> None:
    door, key = site.open_door(), uuid.uuid4().hex * 2
    digest = key_sha256(key)
    with connect(site.platform.settings.database_url) as connection:
        connection.execute(
            "INSERT INTO api_keys (key_sha256, key_id, role) VALUES (%s, %s, 'client')",
            (digest, f"away-{key[:8]}"),
        )
        assert door.post(png(), who=key).status_code == 201
        connection.execute("UPDATE api_keys SET revoked_at = now() WHERE key_sha256 = %s", (digest,))
    ends_at = time.monotonic() + 20
    while door.post(b"", who=key).status_code != 401:
        assert time.monotonic() < ends_at
        time.sleep(0.5)
