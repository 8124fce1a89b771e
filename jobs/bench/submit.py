"""Submit one command to the platform whose environment this process has, and echo what it writes, for benchmarks."""

import asyncio
import json
import sys

from cluster.settings import PROJECT_ROOT, Settings
from jobs.runtime.submit import client


async def echo(command: str) -> int:
    """Returns the exit code of the command."""
    jobs = client(Settings.from_env())
    runtime_env = {
        **json.loads((PROJECT_ROOT / "runtime.json").read_text()),
        "working_dir": str(PROJECT_ROOT),
    }
    submission_id = jobs.submit_job(entrypoint=command, runtime_env=runtime_env)
    async for chunk in jobs.tail_job_logs(submission_id):
        sys.stdout.write(chunk)
        sys.stdout.flush()
    while not jobs.get_job_status(submission_id).is_terminal():
        await asyncio.sleep(0.2)
    return jobs.get_job_info(submission_id).driver_exit_code or 0


if __name__ == "__main__":
    sys.exit(asyncio.run(echo(sys.argv[1])))
