"""A game day that anyone can repeat: a promotion and seven rollbacks under load, while processes are killed.

On a platform in development or staging with a champion. Its copies (same weights, other names) are the canaries; faults
make them bad. Clients retry once with the same `Idempotency-Key`; what they saw is held against the ledger: nobody may
fail, no patient may go back and forth, and the shares have to be the weights. 3 when something is not as it should be.
"""

import asyncio
import contextlib
import json
import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from scipy.stats import binom

from cluster import bundles, progress
from cluster.database import connect
from cluster.home import Home
from cluster.objects import ObjectStore
from cluster.process import marked
from cluster.registry import VIT, Registry
from cluster.settings import Settings
from data.synthetic import SyntheticConfig, generate
from data.taxonomy import taxonomy
from jobs import entry
from jobs.drill_clients import Clients, Log
from serve import desired, faults, operator_calls, rollouts
from serve.faults import Fault
from serve.guardrails import GuardrailConfig
from serve.rollout import Rollout

ACTOR = "jobs.drill"
STEPS: list[dict[str, Any]] = [
    {"share": 0.0, "minutes": 0.1, "pairs": 20, "non_inferior": False},
    {"share": 0.1, "minutes": 0.4, "requests": 20, "non_inferior": False},
    {"share": 0.5, "minutes": 0.4, "requests": 100, "non_inferior": False},
    {"share": 1.0, "minutes": 0.3, "requests": 50, "non_inferior": False},
]
"""A quick ramp: a drill is about what happens on the way, not about how much evidence a promotion needs."""
GUARDRAILS = GuardrailConfig(labels=taxonomy().names, promote_p99_ms=5_000, roll_back_p99_ms=5_000)
"""Without a bound on waiting: with processes that are killed all the while it would never allow a promotion."""
PREY = ("ServeReplica:xray-vit", "ServeReplica:front-door", "ServeReplica:rollout-controller")
"""What Ray calls the processes that are killed in turns."""
CASE_S = 240.0
CONFIDENCE = 0.99


@dataclass(frozen=True, kw_only=True)
class Arguments:
    rate: float = 12.0
    """Requests a second."""
    patients: int = 5000
    kill_every_s: float = 25.0
    """A process is killed so often; 0: none."""
    cases: list[str] = field(default_factory=list)
    """Which; default: all."""
    seed: int = 0
    log: Path | None = None
    """Where what the clients saw is written, a JSON object a line."""


@dataclass(kw_only=True)
class Ground:
    """The platform, and copies of its champion."""

    settings: Settings
    registry: Registry
    draw: random.Random
    copies: int = 0
    killed: list[str] = field(default_factory=list)

    def copy(self, *, broken: bool = False) -> str:
        """Register the champion's weights as a new version; a broken one cannot be loaded."""
        self.copies += 1
        store = ObjectStore(self.settings)
        with tempfile.TemporaryDirectory() as folder:
            directory = Path(folder)
            key = self.registry.bundle_key(VIT, self.champion)
            bundles.fetch(store, key, directory)
            files: dict[str, bytes | Path] = {
                one.name: one
                for one in directory.iterdir()
                if one.name not in (bundles.COMMIT, bundles.SIGNATURE)
            }
            card = json.loads((directory / "card.json").read_text())
            card["drill"] = f"{time.time():.3f}-{self.copies}"
            if broken:
                card["architecture"]["timm"] = "vit_tiny_patch16_224"
                card["architecture"]["kwargs"] = {"depth": 1}
            files["card.json"] = json.dumps(card, sort_keys=True, indent=1).encode()
            return self.registry.register(
                VIT, bundles.publish(store, files), None, {"verdict": "pass", "drill": "yes"}
            )

    @property
    def champion(self) -> str:
        with connect(self.settings.database_url) as connection:
            return desired.read(connection)[VIT].champion.version

    def start(self, version: str) -> Rollout:
        one, _ = operator_calls.begin(
            self.settings, model=VIT, version=version, steps=STEPS, guardrails=GUARDRAILS, actor=ACTOR
        )
        return one

    def now(self, one: Rollout) -> Rollout:
        with connect(self.settings.database_url) as connection:
            return rollouts.get(connection, one.id)

    def until(self, one: Rollout, done: Callable[[Rollout], bool], what: str) -> Rollout:
        """Raises Halted: it takes too long."""
        ends_at = time.monotonic() + CASE_S
        while time.monotonic() < ends_at:
            found = self.now(one)
            if done(found):
                return found
            if found.ended_at is not None:
                raise entry.Halted(
                    f"waited for {what}, and it was {found.state}: {found.verdict.get('why')}", {}
                )
            time.sleep(0.25)
        raise entry.Halted(f"waited {CASE_S:.0f} s for {what}; it is {self.now(one).state}", {})

    def wish(self, one: Rollout, wanted: Any) -> None:
        with connect(self.settings.database_url) as connection:
            rollouts.wish(connection, one.id, wanted, actor=ACTOR)

    @contextmanager
    def fault(self, version: str, fault: Fault) -> Iterator[None]:
        with connect(self.settings.database_url) as connection:
            faults.put(connection, VIT, version, fault, actor=ACTOR)
        try:
            yield
        finally:
            with connect(self.settings.database_url) as connection:
                faults.clear(connection, actor=ACTOR)

    def kill_one(self, nth: int) -> None:
        kind = PREY[nth % len(PREY)]
        prey = [one for one in marked(Home.from_env(os.environ).id, "ray") if kind in _title(one)]
        if prey:
            chosen = self.draw.choice(prey)
            self.killed.append(_title(chosen).removeprefix("ray::").split("(")[0][:60])
            with contextlib.suppress(psutil.NoSuchProcess):
                chosen.kill()


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _rolled_back(one: Rollout) -> bool:
    return one.state == "rolled_back"


def promotion(ground: Ground) -> Rollout:
    """A good version: shown, 10, 50, 100 %, champion."""
    one = ground.start(ground.copy())
    return ground.until(one, lambda found: found.state == "promoted", "the promotion")


def bad_from_the_start(ground: Ground) -> Rollout:
    version = ground.copy()
    with ground.fault(version, Fault(error_rate=0.2)):
        return ground.until(ground.start(version), _rolled_back, "the rollback")


def bad_at_half(ground: Ground) -> Rollout:
    """It turns bad when it has half of the traffic."""
    version = ground.copy()
    one = ground.start(version)
    ground.until(one, lambda found: found.step == 2, "50 %")
    with ground.fault(version, Fault(error_rate=0.2)):
        return ground.until(one, _rolled_back, "the rollback")


def cancelled(ground: Ground) -> Rollout:
    one = ground.start(ground.copy())
    ground.until(one, lambda found: found.step == 1, "10 %")
    ground.wish(one, "rollback")
    return ground.until(one, _rolled_back, "the rollback")


def cancelled_and_restarted(ground: Ground) -> Rollout:
    version = ground.copy()
    for _ in range(2):
        one = ground.start(version)
        ground.until(one, lambda found: found.step == 1, "10 %")
        ground.wish(one, "rollback")
        ended = ground.until(one, _rolled_back, "the rollback")
    return ended


def third_version(ground: Ground) -> Rollout:
    """A third version is started while the second has its share; then it is cancelled."""
    one = ground.start(ground.copy())
    ground.until(one, lambda found: found.step == 1, "10 %")
    other = ground.start(ground.copy())
    ground.until(one, _rolled_back, "the rollback of the second")
    ground.until(other, lambda found: found.step == 1, "10 % of the third")
    ground.wish(other, "rollback")
    return ground.until(other, _rolled_back, "the rollback of the third")


def never_ready(ground: Ground) -> Rollout:
    return ground.until(ground.start(ground.copy(broken=True)), _rolled_back, "the rollback")


def back_at_full(ground: Ground) -> Rollout:
    """It turns bad when it has all of the traffic."""
    version = ground.copy()
    one = ground.start(version)
    ground.until(one, lambda found: found.step == 3, "100 %")
    with ground.fault(version, Fault(error_rate=0.5)):
        return ground.until(one, _rolled_back, "the rollback")


CASES: dict[str, Callable[[Ground], Rollout]] = {
    "promotion": promotion,
    "bad_from_the_start": bad_from_the_start,
    "bad_at_half": bad_at_half,
    "cancelled": cancelled,
    "cancelled_and_restarted": cancelled_and_restarted,
    "third_version": third_version,
    "never_ready": never_ready,
    "back_at_full": back_at_full,
}


@dataclass
class Row:
    """One case of the table."""

    case: str
    state: str
    seconds: float
    requests: int
    raw_failures: int
    lost: int
    fallbacks: int
    killed: int
    flips: int
    off_weight: int
    """Steps whose share of new patients lies outside the interval of its weight."""


def run_case(ground: Ground, arguments: Arguments, name: str, log: Log) -> Row:
    """One case under load and kills."""
    images = _images(arguments.seed)
    clients = Clients(
        ground.settings.api_url,
        str(ground.settings.client_key),
        images,
        rate=arguments.rate,
        patients=arguments.patients,
        seed=arguments.seed,
    )
    began_at, killed = time.time(), len(ground.killed)
    over = threading.Event()
    threads = [threading.Thread(target=_load, args=(clients, over))]
    if arguments.kill_every_s:
        threads.append(threading.Thread(target=_kills, args=(ground, over, arguments.kill_every_s)))
    for one in threads:
        one.start()
    try:
        ended = CASES[name](ground)
        time.sleep(2)
    finally:
        over.set()
        for one in threads:
            one.join()
    seen = clients.log
    log.answers += seen.answers
    flips, off = _assignments(ground, began_at)
    return Row(
        case=name,
        state=ended.state,
        seconds=round(time.time() - began_at, 1),
        requests=seen.sent,
        raw_failures=seen.sent - seen.raw["201"],
        lost=sum(seen.lost.values()),
        fallbacks=sum(one["fallback_from"] is not None for one in seen.answers),
        killed=len(ground.killed) - killed,
        flips=flips,
        off_weight=off,
    )


def _load(clients: Clients, over: threading.Event) -> None:
    async def send() -> None:
        ended = asyncio.Event()
        sending = asyncio.create_task(clients.send(ended))
        while not over.is_set():
            await asyncio.sleep(0.1)
        ended.set()
        await sending

    asyncio.run(send())


def _kills(ground: Ground, over: threading.Event, every_s: float) -> None:
    nth = 0
    while not over.wait(every_s):
        ground.kill_one(nth)
        nth += 1


def _assignments(ground: Ground, began_at: float) -> tuple[int, int]:
    """Patients who left a version that kept or raised its weight, and steps that had not the share that they should."""
    with connect(ground.settings.database_url) as connection:
        rows = connection.execute(
            "SELECT patient_pseudonym AS patient, assignment FROM predictions "
            "WHERE created_at >= to_timestamp(%s) AND assignment->>'key' = 'patient' ORDER BY created_at",
            [began_at],
        ).fetchall()
    flips = 0
    last: dict[str, dict[str, Any]] = {}
    patients: dict[tuple[int, str], set[str]] = {}
    weights: dict[int, dict[str, float]] = {}
    for row in rows:
        told = row["assignment"]
        revision, version = told["revision"], told["version"]
        weights[revision] = told["weights"]
        patients.setdefault((revision, version), set()).add(row["patient"])
        before = last.get(row["patient"])
        if before is not None and before["version"] != version and revision >= before["revision"]:
            kept = told["weights"].get(before["version"], 0.0) >= before["weights"][before["version"]]
            flips += kept
        if before is None or revision >= before["revision"]:
            last[row["patient"]] = told
    off = 0
    for revision, shares in weights.items():
        total = sum(len(patients.get((revision, version), ())) for version in shares)
        for version, share in shares.items():
            got = len(patients.get((revision, version), ()))
            low, high = binom.interval(1 - (1 - CONFIDENCE) / max(1, len(weights)), total, share)
            off += bool(total and not low <= got <= high)
    return flips, off


def missing(ground: Ground, log: Log) -> int:
    """Answers that clients have and the ledger has not."""
    ids = [one["id"] for one in log.answers]
    with connect(ground.settings.database_url) as connection:
        row = connection.execute(
            "SELECT count(*) AS kept FROM predictions WHERE id = ANY(%s::uuid[])", [ids]
        ).fetchone()
    assert row is not None
    return len(set(ids)) - int(row["kept"])


def _images(seed: int) -> list[bytes]:
    """Drawn X-rays as PNG, small, since a drill is not about decoding."""
    with tempfile.TemporaryDirectory() as folder:
        generate(SyntheticConfig(images=40, side=128, seed=seed), Path(folder))
        return [one.read_bytes() for one in sorted(Path(folder).rglob("*.png"))]


def table(rows: list[Row]) -> str:
    names = list(vars(rows[0]))
    lines = [f"| {' | '.join(names)} |", "|" + "---|" * len(names)]
    lines += [f"| {' | '.join(str(getattr(one, name)) for name in names)} |" for one in rows]
    return "\n".join(lines) + "\n"


def work(arguments: Arguments) -> dict[str, Any]:
    settings = Settings.from_env()
    if settings.environment not in faults.ENVIRONMENTS:
        raise entry.JobError(
            f"a drill is for {' and '.join(faults.ENVIRONMENTS)}; this is {settings.environment}"
        )
    if unknown := [one for one in arguments.cases if one not in CASES]:
        raise entry.JobError(f"there is no case {', '.join(unknown)}; there are {', '.join(CASES)}")
    with connect(settings.database_url) as connection:
        live = desired.read(connection).get(VIT)
    if live is None or settings.client_key is None:
        raise entry.JobError("nothing is served, or RAYDIOLOGY_CLIENT_KEY is not set: `make demo` first")
    ground = Ground(
        settings=settings,
        registry=Registry(settings),
        draw=random.Random(arguments.seed),
    )
    log, rows = Log(), []
    chosen = arguments.cases or list(CASES)
    for nth, name in enumerate(chosen):
        progress.report("drill", nth, len(chosen), name)
        rows.append(run_case(ground, arguments, name, log))
        sys.stdout.write(table(rows[-1:]))
    time.sleep(3)
    lost = missing(ground, log)
    if arguments.log is not None:
        log.write(arguments.log)
    sys.stdout.write(table(rows))
    found = {
        "cases": [vars(one) for one in rows],
        "requests": sum(one.requests for one in rows),
        "missing": lost,
        "killed": ground.killed,
    }
    bad = sum(one.lost + one.flips + one.off_weight for one in rows) + lost
    if bad:
        raise entry.Halted(
            "the drill found what should not be: see lost, flips, off_weight and missing", found
        )
    return found


if __name__ == "__main__":
    entry.run("drill", lambda: work(entry.parse(Arguments, "drill")))
