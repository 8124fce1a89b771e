"""Load for the serving benchmarks: a process of its own that keeps a number of connections busy, and what it saw.

`python -m jobs.bench.load --url ... --connections 16 --seconds 8`; its own CPU time is nobody's. Every request is the
same upload of a patient of its own, prepared beforehand, so that the client is quick.
"""

import asyncio
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from cluster.settings import PROJECT_ROOT
from jobs.runtime import entry

BOUNDARY = "raydiology-bench"
PATIENTS = 500
"""So many keys that the weights of versions show in the requests."""
ANSWER_S = 60.0
"""After which a server that does not answer ends the benchmark."""
KEY_VARIABLE = "RAYDIOLOGY_CLIENT_KEY"


@dataclass(frozen=True, kw_only=True)
class Arguments:
    url: str
    body: Path
    """The file that is uploaded."""
    connections: int = 16
    seconds: float = 8.0
    warm_up_s: float = 0.0
    """Seconds before it, whose answers are not counted."""


@dataclass(kw_only=True)
class Seen:
    """What the client saw; latencies in milliseconds, of answered requests."""

    seconds: float = 0.0
    failed: int = 0
    latencies_ms: list[float] = field(default_factory=list)
    failure: str = ""
    """The last failed answer: its status and how its text begins."""

    @property
    def answered(self) -> int:
        return len(self.latencies_ms)

    @property
    def a_second(self) -> float:
        return self.answered / self.seconds

    def percentile_ms(self, share: float) -> float:
        """Return the smallest latency that this share of the answers did not exceed."""
        ordered = sorted(self.latencies_ms)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def multipart(blob: bytes, patient_key: str) -> bytes:
    head = f"--{BOUNDARY}\r\nContent-Disposition: form-data; name="
    return b"".join(
        (
            f'{head}"patient_key"\r\n\r\n{patient_key}\r\n'.encode(),
            f'{head}"file"; filename="x"\r\nContent-Type: application/octet-stream\r\n\r\n'.encode(),
            blob,
            f"\r\n--{BOUNDARY}--\r\n".encode(),
        )
    )


async def load(arguments: Arguments) -> Seen:
    blob = await asyncio.to_thread(arguments.body.read_bytes)
    bodies = [multipart(blob, f"patient-{nth}") for nth in range(PATIENTS)]
    headers = {
        "Content-Type": f"multipart/form-data; boundary={BOUNDARY}",
        "Authorization": f"Bearer {os.environ.get(KEY_VARIABLE, 'none')}",
    }
    seen = Seen(seconds=arguments.seconds)
    begins_s = time.monotonic() + arguments.warm_up_s
    ends_s = begins_s + arguments.seconds
    connector = aiohttp.TCPConnector(limit=arguments.connections)

    async def keep_busy(nth: int, session: aiohttp.ClientSession) -> None:
        while (asked_s := time.monotonic()) < ends_s:
            nth += arguments.connections
            async with session.post(arguments.url, data=bodies[nth % PATIENTS], headers=headers) as answer:
                text = await answer.read()
            answered_s = time.monotonic()
            if asked_s < begins_s or answered_s > ends_s:
                continue
            if answer.status in (200, 201):
                seen.latencies_ms.append((answered_s - asked_s) * 1000)
            else:
                seen.failed += 1
                seen.failure = f"{answer.status} {text[:200].decode(errors='replace')}"

    async with aiohttp.ClientSession(
        connector=connector,
        skip_auto_headers=("User-Agent", "Accept-Encoding"),
        timeout=aiohttp.ClientTimeout(total=ANSWER_S),
    ) as session:
        await asyncio.gather(*(keep_busy(nth, session) for nth in range(arguments.connections)))
    return seen


def start(
    url: str, body: Path, *, key: str, connections: int, seconds: float, warm_up_s: float = 0.0
) -> "subprocess.Popen[str]":
    """Start the client in a process of its own."""
    flags = [f"--url={url}", f"--body={body}", f"--connections={connections}"]
    flags += [f"--seconds={seconds}", f"--warm_up_s={warm_up_s}"]
    return subprocess.Popen(
        [sys.executable, "-m", "jobs.bench.load", *flags],
        cwd=PROJECT_ROOT,
        env={**os.environ, KEY_VARIABLE: key},
        stdout=subprocess.PIPE,
        text=True,
    )


def finished(client: "subprocess.Popen[str]") -> Seen:
    """Wait for the client; returns what it saw.

    Raises:
        JobError: a request failed, or none was answered: figures of such a run mean nothing.
    """
    output, _ = client.communicate()
    if client.returncode != 0 or not output.strip():
        raise entry.JobError(f"the client of a benchmark ended with {client.returncode}")
    seen = Seen(**json.loads(output.splitlines()[-1]))
    if seen.failed or not seen.answered:
        raise entry.JobError(
            f"{seen.failed} requests of a benchmark failed and {seen.answered} were answered within "
            f"{seen.seconds:g} s {seen.failure}: {client.args!r}"
        )
    return seen


if __name__ == "__main__":
    sys.stdout.write(json.dumps(vars(asyncio.run(load(entry.parse(Arguments, "bench_load"))))) + "\n")
