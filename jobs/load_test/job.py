"""Send a constant rate of requests to one version, and hold what comes of it against the gates; exit 3 when it fails.

The version is brought up beside the others, without traffic, if it is not live, and taken out again; requests name it
in the operators' header, so no user meets it. The verdict is a tag of the version, for which `jobs.rollout` and
`jobs.deploy` ask where the environment does (docs/environments.md).
"""

import json
import math
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from cluster import progress
from cluster.api_keys import key_sha256
from cluster.database import connect
from cluster.objects import ObjectStore
from cluster.releases import bundles
from cluster.releases.registry import VIT, Registry
from cluster.settings import PROJECT_ROOT, Settings
from data.synthetic.generator import SyntheticConfig, generate
from jobs.load_test.arrivals import Plan, Sent
from jobs.load_test.report import reported
from jobs.load_test.verdict import ACTOR, judge_and_record, with_environment
from jobs.runtime import entry
from jobs.runtime.inputs import model_version
from serve.control import environments, rollout_store, staged_versions
from serve.control.admission import admit
from serve.control.deploy import apply_desired_state
from train.evaluation.gates import Gates

LOCK = 7_262_006
"""PostgreSQL advisory lock: two load tests at a time would measure each other."""
RATE_OF_A_KEY = 10.0
"""Requests a second that one key sends, half of what a front door lets an operator's key send by default."""
WARM = 4
"""Requests at a time before the first one that counts."""
READY_S, GRACE_S = 60.0, 5.0
"""How long a front door may take to know the version, and the version then to answer."""
IMAGES, SIDE = 40, 256
"""How many X-rays are drawn, and how large, where there is no folder."""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    version: str | None = None
    """Version of `xray-vit`; default: the newest."""
    rate: float | None = None
    """Requests a second; default: the environment's `load_rate`."""
    seconds: float | None = None
    """For how long; default: the environment's `load_seconds`."""
    images: Path | None = None
    """A folder of X-rays (PNG, JPEG, DICOM) to send; default: drawn ones."""
    timeout_s: float = 10.0
    """After which a request has failed."""
    keep: bool = False
    """Leave the version live, without traffic."""
    gates: Gates = field(default_factory=Gates)
    """Bounds under load that are left at their default are the environment's `load_gates`."""

    def __post_init__(self) -> None:
        if self.rate is not None and not 0 < self.rate <= 5000:
            raise ValueError(f"--rate takes requests a second above 0, up to 5000, got {self.rate:g}")
        if self.seconds is not None and not 1 <= self.seconds <= 3600:
            raise ValueError(f"--seconds takes 1 to 3600, got {self.seconds:g}")
        if not 0 < self.timeout_s < math.inf:
            raise ValueError(f"--timeout_s must be above 0, got {self.timeout_s:g}")


def run_load_test(settings: Settings, version: str, arguments: Arguments) -> dict[str, Any]:
    """Send the load and judge it; returns the fields of the job's line.

    Raises:
        Halted: a gate failed.
        AdmissionError, JobError, NotServedError, BundleError: the test cannot be made.
    """
    where = environments.own(settings)
    with _alone(settings), tempfile.TemporaryDirectory() as folder:
        images = arguments.images or _drawn(Path(folder))
        with (
            _live(settings, version, keep=arguments.keep),
            _keys(settings, arguments, where.load_rate) as keys,
        ):
            plan = Plan(
                api_url=settings.api_url,
                keys=keys,
                version=version,
                images=str(images),
                rate=arguments.rate or where.load_rate,
                seconds=arguments.seconds or where.load_seconds,
                timeout_s=arguments.timeout_s,
            )
            _warm_up(plan)
            progress.report("load_test", 0, 1, f"{plan.rate:g} requests a second for {plan.seconds:g} s")
            measured = reported(plan, _sent(plan))
    return judge_and_record(settings, version, plan, measured, with_environment(arguments.gates, where))


@contextmanager
def _alone(settings: Settings) -> Iterator[None]:
    """Hold the lock of load tests.

    Raises:
        JobError: another load test or a rollout is under way.
    """
    with connect(settings.database_url) as connection:
        row = connection.execute("SELECT pg_try_advisory_lock(%s) AS got", (LOCK,)).fetchone()
        if row is None or not row["got"]:
            raise entry.JobError(
                "another load test is running: wait for its end, they would measure each other"
            )
        if (rollout := rollout_store.under_way(connection, VIT)) is not None:
            raise entry.JobError(
                f"rollout {rollout.id} of version {rollout.version} is under way, and a load would spoil its evidence: "
                "wait for its end, or `python -m jobs.rollout rollback`"
            )
        yield


@contextmanager
def _live(settings: Settings, version: str, *, keep: bool) -> Iterator[None]:
    """Bring the version up while the test runs; take it out afterwards unless it was live before."""
    registry = Registry(settings)
    tags = registry.tags(VIT, version)
    admit(VIT, version, tags, environment="a load test", asks_for=["evaluation"], load_rate=0)
    key = registry.bundle_key(VIT, version)
    bundles.verify(ObjectStore(settings), key)
    with connect(settings.database_url) as connection:
        new = staged_versions.enter(connection, model=VIT, version=version, bundle_key=key, actor=ACTOR)
    try:
        if new:
            apply_desired_state(settings, partial(progress.report, "load_test"))
        yield
    finally:
        if new and not keep:
            with connect(settings.database_url) as connection:
                staged_versions.leave(connection, model=VIT, version=version, actor=ACTOR)
            apply_desired_state(settings, lambda done, total, note: None)


@contextmanager
def _keys(settings: Settings, arguments: Arguments, usual_rate: float) -> Iterator[list[str]]:
    """Make operators' keys for this test alone, so many that none sends more than one may; revokes them at its end."""
    count = math.ceil((arguments.rate or usual_rate) / RATE_OF_A_KEY)
    keys = {f"load-test-{secrets.token_hex(6)}": secrets.token_hex(32) for _ in range(count)}
    with connect(settings.database_url) as connection:
        for key_id, key in keys.items():
            connection.execute(
                "INSERT INTO api_keys (key_sha256, key_id, role) VALUES (%s, %s, 'operator')",
                (key_sha256(key), key_id),
            )
    try:
        yield list(keys.values())
    finally:
        with connect(settings.database_url) as connection:  # and those of a test that was killed
            connection.execute(
                "UPDATE api_keys SET revoked_at = now() WHERE key_id LIKE 'load-test-%%' AND revoked_at IS NULL"
            )


def _drawn(folder: Path) -> Path:
    """Draw X-ray-like pictures into one folder."""
    generate(SyntheticConfig(images=IMAGES, side=SIDE), folder / "drawn")
    images = folder / "images"
    images.mkdir()
    for nth, path in enumerate(sorted((folder / "drawn").rglob("*.png"))):
        path.rename(images / f"{nth:04}.png")
    return images


def _warm_up(plan: Plan) -> None:
    """Send requests until the front doors know the version and it answers; one that errs goes on to be judged.

    Raises:
        JobError: the front door does not answer or does not know it, an image is refused, or there is none.
    """
    files = sorted(path for path in Path(plan.images).iterdir() if path.is_file())
    if not files:
        raise entry.JobError(f"there is no image in {plan.images}: give a folder of PNG, JPEG or DICOM files")
    headers = {"Authorization": f"Bearer {plan.keys[0]}", "X-Raydiology-Version": plan.version}
    ends_at, known_at = time.monotonic() + READY_S, None
    with (
        httpx.Client(base_url=plan.api_url, headers=headers, timeout=plan.timeout_s) as api,
        ThreadPoolExecutor(WARM) as pool,
    ):
        while time.monotonic() < ends_at:
            some = [files[nth % len(files)] for nth in range(WARM)]
            answers = list(pool.map(lambda image: _send(api, image, plan.version), some))
            if set(answers) == {""}:
                return
            if not any(answer.startswith("unknown") for answer in answers):
                known_at = known_at or time.monotonic()
                if time.monotonic() > known_at + GRACE_S:
                    return
            time.sleep(0.5)
    seen = ", ".join(sorted(set(answers)))
    raise entry.JobError(
        f"version {plan.version} does not answer at {plan.api_url} after {READY_S:.0f} s: {seen}"
    )


def _send(api: httpx.Client, image: Path, version: str) -> str:
    """Send one image; returns "" if the version answered, `unknown …` if no version did or it is not known yet.

    Raises:
        JobError: the image is refused.
    """
    try:
        answer = api.post("/v1/predictions", files={"file": ("image", image.read_bytes())})
    except httpx.TimeoutException:
        return "late"
    except httpx.HTTPError as error:
        return f"unknown: {type(error).__name__}"
    if answer.status_code in (413, 415, 422):
        raise entry.JobError(f"{image.name} is refused, send X-rays: {answer.text[:300]}")
    if answer.status_code == 400:
        return f"unknown: {answer.text[:200]}"
    return "" if answer.headers.get("x-model-version") == version else f"status {answer.status_code}"


def _sent(plan: Plan) -> list[Sent]:
    """Send the plan's requests from a process of its own, since Locust replaces sockets for the whole process.

    Raises:
        JobError: it ended without records.
    """
    done = subprocess.run(
        [sys.executable, "-m", "jobs.load_test.arrivals"],
        cwd=PROJECT_ROOT,
        input=json.dumps(asdict(plan)),
        capture_output=True,
        text=True,
        timeout=plan.seconds + 2 * plan.timeout_s + 60,
        check=False,
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["it wrote nothing"])[-1]
        raise entry.JobError(f"the sender ended with exit code {done.returncode}: {last[:300]}")
    return [Sent(**record) for record in json.loads(done.stdout)]


def work(arguments: Arguments) -> dict[str, Any]:
    settings = Settings.from_env()
    version = model_version(settings, arguments.version)
    return run_load_test(settings, version, arguments)
