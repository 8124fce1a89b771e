"""The benchmarks of versions under load: what a canary costs, throughput beside two peers, and how fast one is out.

Everything is the product's own, the controller of rollouts included; versions are a ViT-tiny, which all sides run by
`serve.classifier.classifier` (PyTorch, as bundles are served), in batches of at most 16.
"""

import functools
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from psycopg import Connection
from psycopg.rows import DictRow

from cluster.database import connect
from cluster.embedded.process import command_line
from cluster.objects import ObjectStore
from cluster.releases import bundles
from cluster.releases.registry import VIT
from data.taxonomy import taxonomy
from jobs.bench import load
from jobs.bench.figure import Figure
from jobs.bench.front_door import Side, drawn_jpeg, marked
from jobs.bench.load import Seen
from jobs.bench.serve_stage import ACTOR, Peer, Stage, marked_env, publish, staged, start_peer
from jobs.runtime.entry import JobError
from jobs.runtime.waiting import wait_for
from serve.canary.guardrails import GuardrailConfig, Step
from serve.control import rollout_store
from serve.control.plan import Plan
from serve.routing import desired_state

BODY_BYTES = 25_000
ONE = {"2": 0.0, "3": 0.0}
THREE = {"2": 0.1, "3": 0.1}
CANARY_ROUNDS, CANARY_S, CANARY_CONNECTIONS = 5, 8.0, 2
"""So few connections that no side fills the processors: three processes on two cores cost more by that alone."""
SETTLED_S = 3.0
"""After which the reconciler has seen other weights and found nothing to do."""
MOST_OVERHEAD, LEAST_THROUGHPUT, SLOWEST_ROLLBACK_S = 1.05, 1.0, 2.0
CONNECTIONS = (3, 4, 6)
"""At which saturation is looked for; the best of those whose P99 keeps the bound counts."""
THROUGHPUT_S, THROUGHPUT_ROUNDS, P99_MS = 4.0, 3, 300.0
AT_SATURATION = 2
"""Processes of the version, of a thread each: what autoscaling brings. Of the peers one, with a thread a core."""
ROLLBACKS, ROLLBACK_LOAD_S, ROLLBACK_AFTER_S = 3, 10.0, 1.0
FEWEST = 10
STARTED_S = 120.0


def canary_overhead() -> Figure:
    """Compare a request's CPU time with three weighted versions and with all traffic at one; all three always run."""
    with staged() as stage:
        versions = {name: publish(stage, int(name), weights=True) for name in ("1", "2", "3")}
        stage.put(versions, ONE)
        stage.bring_up()
        body = _body(stage)
        key = stage.settings.client_key or "none"
        single, triple = (
            Side(name=name, url=stage.url, processes=stage.serving, key=key)
            for name in ("one version", "three versions")
        )
        stage.weigh(THREE)
        single.ask(body, seconds=CANARY_S, connections=CANARY_CONNECTIONS, counted=False)
        for nth in range(CANARY_ROUNDS):
            pair = [(single, ONE), (triple, THREE)]
            for side, weights in pair if nth % 2 == 0 else pair[::-1]:
                stage.weigh(weights)
                time.sleep(SETTLED_S)
                side.ask(body, seconds=CANARY_S, connections=CANARY_CONNECTIONS)
    for side in (single, triple):
        sys.stdout.write(side.line())
    ours, peer = statistics.median(triple.ms), statistics.median(single.ms)
    figure = Figure.of("canary_overhead", ours, peer, "one version, ViT-tiny", "CPU-ms a request, median")
    return marked(figure, MOST_OVERHEAD)


# ---- throughput


@functools.cache
def throughputs() -> dict[str, float]:
    """Measure requests a second at saturation, by side."""
    with staged() as stage, ExitStack() as stack:
        stage.machine["classifier"]["num_replicas"] = AT_SATURATION
        key = publish(stage, 1, weights=True)
        stage.put({"1": key}, {})
        stage.bring_up()
        body = _body(stage)
        folder = stage.folder / "bundle"
        bundles.fetch(ObjectStore(stage.settings), key, folder, ["card.json", "model.safetensors"])
        threads = os.cpu_count() or 1
        urls = {"ours": stage.url}
        peers: tuple[Peer, ...] = ("litserve_vit", "fastapi_vit")
        for peer in peers:
            env = stack.enter_context(marked_env(stage.platform, peer))
            urls[peer] = start_peer(peer, env, stage.folder / f"{peer}.log", bundle=folder, threads=threads)
        key = stage.settings.client_key or "none"
        seen: dict[str, dict[int, list[Seen]]] = {name: {at: [] for at in CONNECTIONS} for name in urls}
        for nth in range(THROUGHPUT_ROUNDS):
            for connections in CONNECTIONS:
                for name in list(urls)[:: -1 if nth % 2 else 1]:
                    client = load.start(
                        urls[name],
                        body,
                        key=key,
                        connections=connections,
                        seconds=THROUGHPUT_S,
                        warm_up_s=1.0,
                    )
                    seen[name][connections].append(load.finished(client))
    for name, runs in seen.items():
        loads = (f"{at}: {a_second(each):.1f} ({worst_p99_ms(each):.0f} ms)" for at, each in runs.items())
        sys.stdout.write(f"{name}, requests a second (P99) by connections: {', '.join(loads)}\n")
    return {name: best_within(runs, P99_MS) for name, runs in seen.items()}


def a_second(runs: Sequence[Seen]) -> float:
    return statistics.median(run.a_second for run in runs)


def worst_p99_ms(runs: Sequence[Seen]) -> float:
    return max(run.percentile_ms(0.99) for run in runs)


def best_within(loads: Mapping[int, Sequence[Seen]], p99_ms: float) -> float:
    """Return the most requests a second among the loads at which no round's P99 was above the bound.

    Raises:
        JobError: there is none.
    """
    within = [a_second(runs) for runs in loads.values() if worst_p99_ms(runs) <= p99_ms]
    if not within:
        best = min(worst_p99_ms(runs) for runs in loads.values())
        raise JobError(f"no load kept P99 under {p99_ms:g} ms, the best was {best:.0f}: is the machine busy?")
    return max(within)


def _throughput(name: str, peer: str, peer_name: str) -> Figure:
    rates = throughputs()
    unit = "requests/s with P99 under 300 ms"
    figure = Figure.of(name, rates["ours"], rates[peer], f"{peer_name}, same model and batches", unit)
    return marked(figure, at_least=LEAST_THROUGHPUT)


def serve_throughput() -> Figure:
    """Compare with LitServe, which decodes in its worker and neither authenticates, stores nor records."""
    return _throughput("serve_throughput", "litserve_vit", "LitServe")


def serve_throughput_vs_fastapi() -> Figure:
    """Compare with FastAPI with model and batches in its own process, likewise."""
    return _throughput("serve_throughput_vs_fastapi", "fastapi_vit", "FastAPI")


# ---- rollback


def rollback_time() -> Figure:
    """Time a rollback from the deciding transaction to the last request sent to the version; the slowest of several.

    Rollouts are started and rolled back by an operator's wish, which the controller carries out under load.
    """
    with staged() as stage:
        good, bad = (publish(stage, nth, weights=True) for nth in (1, 2))
        stage.put({"1": good}, {})
        stage.bring_up()
        body = _body(stage)
        took_s = [_rolled_back(stage, bad, body) for _ in range(ROLLBACKS)]
    sys.stdout.write(f"seconds to the last request: {', '.join(f'{took:.3f}' for took in took_s)}\n")
    figure = Figure.of("rollback_time", max(took_s), 1.0, "a second", "s, slowest of 3; no weights loaded")
    return marked(figure, SLOWEST_ROLLBACK_S)


def _rolled_back(stage: Stage, bundle_key: str, body: Path) -> float:
    """Start one rollout at half of the traffic and end it; returns seconds from decision to the last request sent."""
    steps = (Step(share=0.5, minutes=60, non_inferior=False),)
    plan = Plan(guardrails=GuardrailConfig(labels=taxonomy().names), steps=steps)
    with connect(stage.settings.database_url) as connection:
        _until(lambda: "2" not in desired_state.read(connection)[VIT].weights, "the last one is forgotten")
        rollout = rollout_store.start(
            connection, model=VIT, version="2", bundle_key=bundle_key, plan=plan, actor=ACTOR
        )
        _until(lambda: rollout_store.get(connection, rollout.id).state == "running", "the rollout runs")
        began_s = time.time()
        key = stage.settings.client_key or "none"
        client = load.start(stage.url, body, key=key, connections=8, seconds=ROLLBACK_LOAD_S)
        _until(lambda: len(sent_s(connection, began_s).get("2", ())) >= FEWEST, "the canary has answered")
        time.sleep(ROLLBACK_AFTER_S)
        before = replicas(stage)
        rollout_store.request(connection, rollout.id, "rollback", actor=ACTOR)
        load.finished(client)
        after = replicas(stage)
        events = rollout_store.events(connection, rollout.id)
        decided_at = next(event["at"] for event in events if event["action"] == "roll_back")
        sent = sent_s(connection, began_s)
    if after - before:
        raise JobError(f"a rollback started {len(after - before)} replicas, so weights were loaded")
    return sent_after_s(sent, "2", decided_at.timestamp())


def replicas(stage: Stage) -> set[tuple[int, float]]:
    """List the processes of versions, which hold weights."""
    versions = [process for process in stage.serving() if f"ServeReplica:{VIT}" in command_line(process)]
    return {(process.pid, process.create_time()) for process in versions}


def sent_s(connection: Connection[DictRow], since_s: float) -> dict[str, list[float]]:
    """Return when each attempt at each version was made, seconds since 1970: its record less what it took."""
    rows = connection.execute(
        "SELECT attempt->>'version' AS version, "
        "extract(epoch FROM created_at)::float - (attempt->>'latency_ms')::float / 1000 AS sent "
        "FROM predictions, jsonb_array_elements(attempts) AS attempt WHERE created_at >= to_timestamp(%s)",
        [since_s],
    ).fetchall()
    sent: dict[str, list[float]] = {}
    for row in rows:
        sent.setdefault(row["version"], []).append(row["sent"])
    return sent


def sent_after_s(sent: Mapping[str, Sequence[float]], bad: str, decided_s: float) -> float:
    """Return the seconds from the decision to the last request sent to the bad version; 0 if none was.

    Raises:
        JobError: so few requests that this says nothing: at the version before, or at others after.
    """
    before = sum(at <= decided_s for at in sent.get(bad, ()))
    after = sum(at > decided_s for version, each in sent.items() if version != bad for at in each)
    if min(before, after) < FEWEST:
        raise JobError(f"{before} requests before and {after} after a rollback are too few to time it")
    return max(0.0, max(sent[bad]) - decided_s)


def _until(true: Callable[[], bool], what: str) -> None:
    late = JobError(f"after {STARTED_S:.0f} s of a benchmark it is still not so that {what}")
    wait_for(true, STARTED_S, lambda: late, every_s=0.05)


def _body(stage: Stage) -> Path:
    body = stage.folder / "body"
    body.write_bytes(drawn_jpeg(BODY_BYTES))
    return body


BENCHMARKS = (canary_overhead, serve_throughput, serve_throughput_vs_fastapi, rollback_time)
