"""Requests at a constant rate, whatever the answers take: what `jobs.load_test` starts as a process of its own.

Locust sends and counts; its users would wait for their answers, so that a server that stalls is asked less just then.
Here one user starts each request when it is due, in a greenlet of its own, and the time of an answer is counted from
when its request was due, not from when it was sent. A plan as JSON on standard input (it has keys in it), records as
JSON on standard output. Of its own, since Locust changes Python's sockets for the whole process.
"""

import json
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

LEAD_S = 0.5
"""Until the first request is due, so that what a process does only once delays none."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    api_url: str
    keys: list[str] = field(repr=False)
    """API keys of role operator, which take turns."""
    version: str
    """That is to answer."""
    images: str
    """A folder of image files, which take turns."""
    rate: float
    """Requests a second ..."""
    seconds: float
    """... for so long."""
    timeout_s: float
    """After which a request has failed."""


@dataclass(frozen=True, kw_only=True)
class Sent:
    """What became of one request."""

    due_s: float
    """Since the first one."""
    late_ms: float
    """By which it was sent after it was due: the sender's own delay."""
    ms: float
    """From when it was due to its answer, or its failure."""
    error: str
    """Empty when the version answered."""


def sent(plan: Plan) -> list[Sent]:
    """Send all requests and wait for their ends. Import of Locust and so of gevent happens here."""
    from time import perf_counter

    import gevent
    import locust  # before everything that opens sockets, which it replaces by gevent's
    from gevent.pool import Pool
    from locust.env import Environment

    files = [path.read_bytes() for path in sorted(Path(plan.images).iterdir()) if path.is_file()]
    total = round(plan.rate * plan.seconds)
    requests: list[Sent] = []

    class Arrivals(locust.FastHttpUser):
        host = plan.api_url
        network_timeout = connection_timeout = plan.timeout_s
        concurrency = total  # a request never waits for another's connection
        max_redirects = 0

        @locust.task
        def arrive(self) -> None:
            pool, began_s = Pool(), perf_counter() + LEAD_S
            for nth in range(total):
                due_s = nth / plan.rate
                gevent.sleep(max(0.0, began_s + due_s - perf_counter()))
                pool.spawn(self.request, nth, began_s, due_s)
            pool.join()
            self.environment.runner.quit()

        def request(self, nth: int, began_s: float, due_s: float) -> None:
            late_ms = (perf_counter() - began_s - due_s) * 1000
            headers = {
                "Authorization": f"Bearer {plan.keys[nth % len(plan.keys)]}",
                "X-Raydiology-Version": plan.version,
            }
            image = {"file": ("image", files[nth % len(files)], "application/octet-stream")}
            with self.client.post(
                "/v1/predictions", headers=headers, files=image, catch_response=True
            ) as answer:
                ms = (perf_counter() - began_s - due_s) * 1000
                answer.request_meta["response_time"] = ms
                error = _error(answer, plan.version)
                if error:
                    answer.failure(error)
                else:
                    answer.success()
            requests.append(Sent(due_s=due_s, late_ms=late_ms, ms=ms, error=error))

    environment = Environment(user_classes=[Arrivals], catch_exceptions=False)
    runner = environment.create_local_runner()
    runner.start(1, spawn_rate=1)
    runner.greenlet.join()
    return requests


def _error(answer: Any, version: str) -> str:
    """Return the kind of failure of an answer, empty for none; nothing of what was sent or answered."""
    if not answer.status_code:
        error = answer.error
        while error.__cause__ or error.__context__:  # a client's own wrapper tells less than what it wraps
            error = error.__cause__ or error.__context__
        return type(error).__name__
    if answer.status_code != 201:
        return f"status {answer.status_code}"
    return "" if answer.headers.get("x-model-version") == version else "answered by the champion"


if __name__ == "__main__":
    sys.stdout.write(json.dumps([asdict(request) for request in sent(Plan(**json.load(sys.stdin)))]))
