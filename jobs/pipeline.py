"""The whole chain in one command: ingest → etl → train → evaluate → (load test) → deploy → ask.

Where it is started it reads the folder and uploads; the rest it submits as one Ray job and follows. Started by
`ray job submit`, it runs every stage in place. A rerun goes on where the last one stopped: what is ingested,
computed or trained already is not done again.
"""

import json
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

import psycopg

from cluster import progress
from cluster.database import connect
from cluster.embedded.home import Home
from cluster.releases.registry import VIT, Registry
from cluster.settings import Settings
from data.catalog.intake import SYNTHETIC, bring_in
from jobs.ask import ask
from jobs.etl import run_etl
from jobs.evaluate import run_evaluate
from jobs.load_test.job import Arguments as LoadTest
from jobs.load_test.job import run_load_test
from jobs.recipes import recipe
from jobs.runtime import entry, pipeline_summary
from jobs.runtime.console import Console
from jobs.runtime.submit import submit_and_follow
from jobs.train import run_train
from serve.control import environments
from serve.control.deploy import apply_desired_state, champion_of, cut_over
from train.evaluation.gates import Gates
from train.llm.base_weights import convert
from train.llm.registry import checkpoint_directory, register

CALLER_LOCK, CLUSTER_LOCK = 7_262_005, 7_262_004
"""PostgreSQL advisory locks of the pipeline's two parts; any constants of ours will do. The part in the cluster
holds its own, since it may outlive the caller."""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    source: str = SYNTHETIC
    """A folder with `manifest.csv`, a dataset's name (docs/data.md), or "synthetic" for the built-in generator."""
    recipe: str | None = None
    """Named settings of all stages; default: "demo" for synthetic X-rays, "xrays_quick" for a folder."""
    fresh: bool = False
    """Compute and train anew even where the results exist."""
    gates: Gates = field(default_factory=Gates)
    sources: list[str] | None = None
    """Names of sources in the catalog to use; given by the part that ingests, for the part in the cluster."""


def inside_a_ray_job() -> bool:
    """Tell whether Ray's job manager started this process; it sets this variable for its entry points."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


@contextmanager
def one_at_a_time(settings: Settings, lock: int) -> Iterator[None]:
    """Hold a lock; freed by the database when this process ends, however it ends."""
    with connect(settings.database_url) as connection:
        row = connection.execute("SELECT pg_try_advisory_lock(%s) AS got", (lock,)).fetchone()
        if row is None or not row["got"]:
            raise entry.JobError(
                "another pipeline is running; wait for it, or see it in the dashboard at "
                f"{settings.ray_api_server_address} and end it with `ray job stop`"
            )
        yield


def start(arguments: Arguments, settings: Settings) -> dict[str, Any]:
    """Run the part on the caller's machine: ingest, register the language model, submit the rest, show the end."""
    name = arguments.recipe or ("demo" if arguments.source == SYNTHETIC else "xrays_quick")
    chosen = recipe(name)
    log_path = Home.from_env(os.environ).log(f"pipeline-{datetime.now(UTC):%Y%m%dT%H%M%SZ}")
    with Console(log_path) as console:
        started_at = time.monotonic()
        console.say(
            f"Raydiology pipeline, recipe {name}, environment {settings.environment}; log: {log_path}"
        )
        ingested = bring_in(
            settings, arguments.source, chosen.synthetic, report=console.stage, say=console.say
        )
        if ingested["quarantined"]:
            console.say(f"quarantined {ingested['quarantined']}: {ingested['by_reason']}")
        register(settings, convert(checkpoint_directory()))
        command = ["python", "-m", "jobs.pipeline", "--recipe", name]
        command += ["--sources", json.dumps(ingested["sources"])]
        command += ["--gates", json.dumps(asdict(arguments.gates)), *(["--fresh"] if arguments.fresh else [])]
        ended = submit_and_follow(settings, shlex.join(command), console)
        report = {**ended.report, "ingest": ingested, "seconds": round(time.monotonic() - started_at, 1)}
        if "evaluate" in report:
            pipeline_summary.show(console, settings, report)
        report.pop("job", None), report.pop("status", None)
        if ended.exit_code == entry.EXIT_HALTED:
            raise entry.Halted(report.pop("why", "a gate halted the pipeline"), report)
        if ended.exit_code != entry.EXIT_OK:
            raise entry.JobError(
                f"{report.get('error', f'the Ray job ended with exit code {ended.exit_code}')} (log: {log_path})"
            )
        return report


class StageReports:
    """What each stage reported, and how long it took."""

    def __init__(self) -> None:
        self.times_s: dict[str, float] = {}
        self.fields: dict[str, Any] = {"times_s": self.times_s}
        """Fields of the job's last line."""

    def run(self, stage: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Run a stage and keep its report.

        Raises:
            Halted: a gate stopped it; its report holds the stages before, too.
        """
        started_at = time.monotonic()
        try:
            report = work()
        except entry.Halted as verdict:
            raise entry.Halted(str(verdict), {**self.fields, stage: verdict.report}) from verdict
        finally:
            self.times_s[stage] = round(time.monotonic() - started_at, 1)
        self.fields[stage] = report
        return report


def stages(arguments: Arguments, settings: Settings) -> dict[str, Any]:
    """Run the part in the cluster, each stage by the function that its own job calls.

    Raises:
        Halted: a gate failed; its report holds what was done so far.
    """
    chosen, fresh = recipe(arguments.recipe or "demo"), arguments.fresh
    etl_config = chosen.etl_of(tuple(arguments.sources or ()))
    reports = StageReports()
    dataset = reports.run(
        "etl", lambda: run_etl(settings, etl_config, fresh=fresh, validation=chosen.validation)
    )["dataset_version"]
    version = reports.run("train", lambda: run_train(settings, chosen.train, dataset, run=None, fresh=fresh))[
        "model_version"
    ]
    reports.run("evaluate", lambda: run_evaluate(settings, version, arguments.gates))
    first = champion_of(settings) is None
    load_test = environments.own(settings).pipeline_load_test
    load = LoadTest(gates=arguments.gates)
    # A version is tested before users meet it; the first one has to be deployed before anything can send it a load.
    if load_test and not first:
        reports.run("load_test", lambda: run_load_test(settings, version, load))
    if _may_cut_over(settings):
        cut_over(settings, version, actor="jobs.pipeline")
    reports.run("deploy", lambda: apply_desired_state(settings, partial(progress.report, "deploy")))
    if load_test and first:
        reports.run("load_test", lambda: run_load_test(settings, version, load))
    reports.run("ask", lambda: ask(settings, dataset, chosen.ask, partial(progress.report, "ask")))
    return reports.fields


def _may_cut_over(settings: Settings) -> bool:
    """Tell whether the version may serve at once: in development always, elsewhere only without a champion, since a
    rollout is to replace one.
    """
    return (
        settings.environment == "development" or Registry(settings).version_by_alias(VIT, "champion") is None
    )


def work(arguments: Arguments) -> dict[str, Any]:
    settings = Settings.from_env()
    in_place = inside_a_ray_job()
    try:
        with one_at_a_time(settings, CLUSTER_LOCK if in_place else CALLER_LOCK):
            return in_the_cluster(arguments, settings) if in_place else start(arguments, settings)
    except psycopg.OperationalError as error:
        raise entry.JobError("PostgreSQL does not answer; `make status` says why") from error


def in_the_cluster(arguments: Arguments, settings: Settings) -> dict[str, Any]:
    """Run every stage in place; ingests too, unless the caller did and names the sources."""
    if arguments.sources is not None:
        return stages(arguments, settings)
    ingested = bring_in(
        settings,
        arguments.source,
        recipe(arguments.recipe or "demo").synthetic,
        report=progress.report,
        say=lambda text: sys.stdout.write(f"{text}\n"),
    )
    return {"ingest": ingested, **stages(replace(arguments, sources=ingested["sources"]), settings)}


if __name__ == "__main__":
    entry.main("pipeline", Arguments, work)
