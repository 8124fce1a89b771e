"""Submit a job of ours to Ray and follow it: its steps become bars, its other lines go to a log file."""

import asyncio
import json
import logging
import time
from dataclasses import dataclass
from typing import Any

from ray.job_submission import JobStatus, JobSubmissionClient

from cluster import progress
from cluster.settings import PROJECT_ROOT, Settings
from jobs.runtime import working_tree
from jobs.runtime.console import Console
from jobs.runtime.entry import JobError, git_commit


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a followed job ended."""

    submission_id: str
    exit_code: int
    report: dict[str, Any]
    """Its last line, parsed; empty when it wrote none."""


def client(settings: Settings) -> JobSubmissionClient:
    """Connect to the job server.

    Raises:
        JobError: it does not answer.
    """
    headers = {}
    if settings.ray_auth_token_path is not None:
        headers["Authorization"] = f"Bearer {settings.ray_auth_token_path.read_text().strip()}"
    try:
        made = JobSubmissionClient(settings.ray_api_server_address, headers=headers)
    except (ConnectionError, RuntimeError) as error:
        raise JobError(
            f"Ray's job server at {settings.ray_api_server_address} does not answer; `make status` says why"
        ) from error
    for talkative in ("ray", "ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk"):
        logging.getLogger(talkative).setLevel(logging.ERROR)  # they set themselves to tell of every upload
    return made


def submit_and_follow(settings: Settings, entrypoint: str, console: Console) -> Ended:
    """Run `entrypoint` in the cluster with this working tree, until it ends.

    An interrupt here stops the job there.
    """
    jobs = client(settings)
    runtime_env = json.loads((PROJECT_ROOT / "runtime.json").read_text())
    runtime_env["working_dir"] = str(PROJECT_ROOT)
    runtime_env.setdefault("env_vars", {}).update(
        {"RAYDIOLOGY_GIT_COMMIT": git_commit() + _dirty(), **working_tree.submitted(settings)}
    )
    submission_id = jobs.submit_job(entrypoint=entrypoint, runtime_env=runtime_env)
    console.say(f"Ray job {submission_id} runs")
    try:
        report = asyncio.run(_follow(jobs, submission_id, console))
    except KeyboardInterrupt:
        jobs.stop_job(submission_id)
        raise
    details = jobs.get_job_info(submission_id)
    exit_code = details.driver_exit_code
    if exit_code is None:
        exit_code = 0 if details.status == JobStatus.SUCCEEDED else 1
        report.setdefault("error", " ".join((details.message or "the job was stopped").split())[:1000])
    return Ended(submission_id=submission_id, exit_code=exit_code, report=report)


async def _follow(jobs: JobSubmissionClient, submission_id: str, console: Console) -> dict[str, Any]:
    report: dict[str, Any] = {}
    last = ""
    async for chunk in jobs.tail_job_logs(submission_id):
        for line in chunk.splitlines():
            step = progress.parse(line)
            if step is not None:
                console.step(step)
                continue
            console.log(line)
            last = line.strip() or last
            if line.startswith('{"job":'):
                try:
                    report = json.loads(line)
                except ValueError:
                    console.log("the line above is no JSON")
    if not report:
        report["error"] = f"the job ended without a report; its last line was: {last[:500]}"
    ends_at = time.monotonic() + 60
    while not jobs.get_job_status(submission_id).is_terminal():
        if time.monotonic() > ends_at:
            raise JobError(
                f"lost the log of {submission_id}; `ray job status {submission_id}` tells its state"
            )
        await asyncio.sleep(0.5)
    return report


def _dirty() -> str:
    """Return "+" if the working tree differs from its commit, so that no model claims code that did not make it."""
    return "+" if working_tree.git(PROJECT_ROOT, "status", "--porcelain") else ""
