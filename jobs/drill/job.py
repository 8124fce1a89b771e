"""A game day that anyone can repeat: a promotion and rollbacks under load, while processes are killed.

On a platform in development or staging with a champion. Its copies (same weights, other names) are the canaries; what
is wrong with them is injected. Other cases are about the machine: PostgreSQL says nothing for a minute, the load rises.
Clients retry once with the same `Idempotency-Key`; what they saw is held against the ledger: nobody may fail, no
patient may go back and forth, and the shares have to be the weights. 3 when something is not as it should be.
"""

import asyncio
import math
import random
import statistics
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cluster import progress
from cluster.database import connect
from cluster.objects import ObjectStore
from cluster.releases.registry import VIT, Registry
from cluster.settings import Settings
from data.synthetic.generator import SyntheticConfig, generate
from jobs.drill.cases import CASES, ROLLOUTS
from jobs.drill.clients import Clients, Log
from jobs.drill.platform import DrillPlatform, UnexpectedError
from jobs.drill.table import Row, judged, table
from jobs.runtime import entry
from serve.control import environments
from serve.control.plan import Rollout
from serve.control.rollout_store import RolloutError
from serve.routing import desired_state

SETTLED_S = 3.0
"""After a case the last answers come, and the last records."""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    rate: float = 12.0
    """Requests a second."""
    requests: int = 10_000
    """At least so many over all cases: a case that is over goes on until it has its part."""
    patients: int = 5000
    kill_every_s: float = 25.0
    """A process is killed so often; 0: none."""
    cases: list[str] = field(default_factory=list)
    """Which; default: those of rollouts."""
    repeat: int = 1
    """Each case so often."""
    seed: int = 0
    log: Path | None = None
    """Where what the clients saw is written, a JSON object a line."""

    def __post_init__(self) -> None:
        if not 0 < self.rate <= 5000:
            raise ValueError(f"--rate takes requests a second above 0, up to 5000, got {self.rate:g}")
        if not 0 <= self.kill_every_s < math.inf:
            raise ValueError(f"--kill_every_s takes seconds, 0 for no kills, got {self.kill_every_s:g}")
        for name, least in (("requests", 0), ("patients", 1), ("repeat", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"--{name} must be at least {least}, got {getattr(self, name)}")
        if unknown := [name for name in self.cases if name not in CASES]:
            raise ValueError(f"there is no case {', '.join(unknown)}; there are {', '.join(CASES)}")


def run_case(
    platform: DrillPlatform, arguments: Arguments, name: str, images: list[bytes], log: Log, least: float
) -> Row:
    """Run one case under load and kills.

    Args:
        least: requests that are sent, however soon it is over.
    """
    clients = Clients(
        platform.settings.api_url,
        str(platform.settings.client_key),
        images,
        rate=arguments.rate,
        patients=arguments.patients,
        seed=arguments.seed,
    )
    platform.clients, platform.fault_at = clients, None
    began_at, killed, over = time.time(), len(platform.killed), threading.Event()
    threads = [threading.Thread(target=lambda: asyncio.run(clients.send(over)))]
    if arguments.kill_every_s:
        threads.append(threading.Thread(target=_kills, args=(platform, over, arguments.kill_every_s)))
    for thread in threads:
        thread.start()
    went = True
    try:
        try:
            rollout = CASES[name](platform)
        except (UnexpectedError, RolloutError) as error:
            sys.stdout.write(f"{name}: {error}\n")
            went, rollout = False, platform.end()
        seconds = time.time() - began_at
        while clients.log.sent < least:
            time.sleep(0.5)
    finally:
        over.set()
        for thread in threads:
            thread.join()
    time.sleep(SETTLED_S)
    seen = clients.log
    log.answers += seen.answers
    flips, off_weight = judged(_assigned(platform, began_at))
    return Row(
        case=name,
        state="-" if rollout is None else rollout.state,
        went=went,
        seconds=round(seconds, 1),
        out_s=_out_s(platform, rollout),
        requests=seen.sent,
        raw_failures=seen.sent - seen.raw["201"],
        lost=sum(seen.lost.values()),
        fallbacks=sum(answer["fallback_from"] is not None for answer in seen.answers),
        killed=len(platform.killed) - killed,
        flips=flips,
        off_weight=off_weight,
    )


def _out_s(platform: DrillPlatform, rollout: Rollout | None) -> float | None:
    if rollout is None or rollout.ended_at is None or platform.fault_at is None:
        return None
    return round(rollout.ended_at.timestamp() - platform.fault_at, 1)


def _kills(platform: DrillPlatform, over: threading.Event, every_s: float) -> None:
    nth = 0
    while not over.wait(every_s):
        platform.kill_one(nth)
        nth += 1


def _assigned(platform: DrillPlatform, began_at: float) -> list[dict[str, Any]]:
    with connect(platform.settings.database_url) as connection:
        return connection.execute(
            "SELECT patient_pseudonym AS patient, assignment FROM predictions "
            "WHERE created_at >= to_timestamp(%s) AND assignment->>'key' = 'patient' ORDER BY created_at",
            [began_at],
        ).fetchall()


def missing(platform: DrillPlatform, log: Log) -> int:
    """Count the answers that clients have and the ledger has not."""
    ids = [answer["id"] for answer in log.answers]
    with connect(platform.settings.database_url) as connection:
        row = connection.execute(
            "SELECT count(*) AS stored FROM predictions WHERE id = ANY(%s::uuid[])", [ids]
        ).fetchone()
    assert row is not None
    return len(set(ids)) - int(row["stored"])


def _images(seed: int) -> list[bytes]:
    """Draw X-rays as PNG, small, since a drill is not about decoding."""
    with tempfile.TemporaryDirectory() as folder:
        generate(SyntheticConfig(images=40, side=128, seed=seed), Path(folder))
        return [path.read_bytes() for path in sorted(Path(folder).rglob("*.png"))]


def _platform(arguments: Arguments) -> DrillPlatform:
    settings = Settings.from_env()
    allowing = environments.allowing_faults(settings)
    if settings.environment not in allowing:
        raise entry.JobError(f"a drill is for {' and '.join(allowing)}; this is {settings.environment}")
    with connect(settings.database_url) as connection:
        live = desired_state.read(connection).get(VIT)
    if live is None or settings.client_key is None:
        raise entry.JobError("nothing is served, or RAYDIOLOGY_CLIENT_KEY is not set: `make demo` first")
    return DrillPlatform(
        settings=settings,
        store=ObjectStore(settings),
        registry=Registry(settings),
        draw=random.Random(arguments.seed),
    )


def work(arguments: Arguments) -> dict[str, Any]:
    platform, images = _platform(arguments), _images(arguments.seed)
    log, rows = Log(), []
    chosen = (arguments.cases or list(ROLLOUTS)) * arguments.repeat
    for nth, name in enumerate(chosen):
        progress.report("drill", nth, len(chosen), name)
        least = arguments.requests / len(chosen)
        rows.append(run_case(platform, arguments, name, images, log, least))
        sys.stdout.write(table(rows[-1:], header=nth == 0))
    lost = missing(platform, log)
    if arguments.log is not None:
        log.write(arguments.log)
    outs = [row.out_s for row in rows if row.out_s is not None]
    report = {
        "cases": [vars(row) for row in rows],
        "requests": sum(row.requests for row in rows),
        "latency_ms": log.latencies_ms(),
        "median_out_s": statistics.median(outs) if outs else None,
        "missing": lost,
        "killed": platform.killed,
    }
    if lost or any(row.bad for row in rows):
        raise entry.Halted("not as it should be: see went, lost, flips, off_weight and missing", report)
    return report
