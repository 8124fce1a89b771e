"""The front-door benchmarks: CPU time of a request's way through the product, beside LitServe and a stock Serve graph.

A canary is active; the body is opaque, the model does nothing, and no image is decoded or stored
(`jobs.bench.serve_apps`). The sides take turns. What processes use while nobody asks is taken off on every side.
"""

import functools
import io
import os
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil
from PIL import Image

from cluster.objects import ObjectStore
from data.imaging.preprocess import encode_png
from data.sandbox.decoder import Decoder
from jobs.bench import corpus, load
from jobs.bench.figure import Figure
from jobs.bench.serve_stage import Peer, Stage, marked_env, publish, staged, start_peer
from jobs.runtime.throwaway_platform import Watch, idle_share

BODY_BYTES = 25_000
SIDE = 160
"""The hop to a version carries pixels, SIDE x SIDE bytes: as many as the body has, which the stock graph's carries."""
CONNECTIONS, SECONDS, ROUNDS = 16, 6.0, 4
OF_LITSERVE, OF_STOCK = 0.8, 0.2
"""At most so much of the peer's CPU time."""
WEIGHTS = {"2": 0.1}
Processes = Callable[[], Sequence[psutil.Process]]


@dataclass(kw_only=True)
class Side:
    """A server under load, and what it used."""

    name: str
    url: str
    processes: Processes
    apart: Mapping[str, Processes] = field(default_factory=dict)
    """What is reported beside it, by name."""
    key: str = "none"
    idle: float = 0.0
    """CPU-seconds a second while nobody asks."""
    ms: list[float] = field(default_factory=list)
    """CPU time of a request, milliseconds, of each round; without `idle`."""
    apart_ms: dict[str, list[float]] = field(default_factory=dict)
    a_second: list[float] = field(default_factory=list)

    def rest(self) -> None:
        self.idle = idle_share(self.processes)

    def ask(
        self, body: Path, *, seconds: float = SECONDS, connections: int = CONNECTIONS, counted: bool = True
    ) -> None:
        """Run one round of load; the first one is not `counted`."""
        with ExitStack() as stack:
            watches = {name: stack.enter_context(Watch(each)) for name, each in self.apart.items()}
            watch = stack.enter_context(Watch(self.processes))
            client = load.start(self.url, body, key=self.key, connections=connections, seconds=seconds)
            seen = load.finished(client)
        if not counted:
            return
        self.ms.append(cost_ms(watch, self.idle, seen.answered))
        self.a_second.append(seen.a_second)
        for name, other in watches.items():
            self.apart_ms.setdefault(name, []).append(cost_ms(other, 0.0, seen.answered))

    def line(self) -> str:
        apart = "".join(f"; {name} {statistics.median(ms):.2f}" for name, ms in self.apart_ms.items())
        return (
            f"{self.name}: {statistics.median(self.ms):.2f} ms a request ({min(self.ms):.2f} to {max(self.ms):.2f})"
            f", {statistics.median(self.a_second):.0f} a second, idle {self.idle:.3f} of a core{apart}\n"
        )


def cost_ms(watch: Watch, idle: float, requests: int) -> float:
    """Return the CPU milliseconds of one request, without what is used anyway."""
    return 1000 * (watch.cpu_s - idle * watch.wall_s) / requests


def marked(figure: Figure, at_most: float | None = None, *, at_least: float | None = None) -> Figure:
    """Name the mark in a figure that is on the wrong side of it."""
    for mark, sign in ((at_most, 1), (at_least, -1)):
        if mark is not None and sign * figure.ratio > sign * mark:
            return replace(figure, peer_name=f"{figure.peer_name}; MISSES its mark of {mark:g}")
    return figure


@functools.cache
def costs() -> dict[str, float]:
    """Measure the CPU milliseconds of a request, by side."""
    with staged() as stage, ExitStack() as stack:
        body = stage.folder / "body"
        body.write_bytes(os.urandom(BODY_BYTES))
        versions = {version: publish(stage, int(version), side=SIDE, weights=False) for version in ("1", "2")}
        stage.put(versions, WEIGHTS)
        stage.bring_up(builders="jobs.bench.serve_apps")
        sides = [_ours(stage), *(_peer(stage, stack, name) for name in ("litserve", "stock"))]
        for side in sides:
            side.ask(body, counted=False)
            side.rest()
        for nth in range(ROUNDS):
            for side in sides[nth % 3 :] + sides[: nth % 3]:
                side.ask(body)
        for side in sides:
            sys.stdout.write(side.line())
        sys.stdout.write(left_out(stage))
    return {side.name: statistics.median(side.ms) for side in sides}


def _ours(stage: Stage) -> Side:
    apart = {"PostgreSQL": stage.component("postgresql"), "SeaweedFS": stage.component("s3")}
    key = stage.settings.client_key or "none"
    return Side(name="ours", url=stage.url, processes=stage.serving, apart=apart, key=key)


def _peer(stage: Stage, stack: ExitStack, name: Peer) -> Side:
    env = stack.enter_context(marked_env(stage.platform, name))
    url = start_peer(name, env, stage.folder / f"{name}.log")
    return Side(name=name, url=url, processes=stage.peer(name))


def left_out(stage: Stage) -> str:
    """Measure what the figure leaves out: CPU time of a decoder process, and of an image's way to the object store."""
    blob = drawn_jpeg(BODY_BYTES)
    store, images = ObjectStore(stage.settings), 200
    with Decoder(children=1) as decoder:
        shown_HW = decoder.decode(blob).shown_HW
        with Watch(lambda: [psutil.Process(), *map(psutil.Process, decoder.pids())]) as decoding:
            for _ in range(images):
                decoder.decode(blob)
    with Watch(stage.component("s3")) as server, Watch(lambda: [psutil.Process()]) as storing:
        with ThreadPoolExecutor(4) as pool:
            keys = [f"bench/{nth}" for nth in range(images)]
            list(pool.map(lambda key: store.put("predictions", key, encode_png(shown_HW)), keys))
    return (
        f"left out, a JPEG of {len(blob):,} bytes: decoding {cost_ms(decoding, 0, images):.2f} ms, PNG and S3 "
        f"{cost_ms(storing, 0, images):.2f} ms, SeaweedFS {cost_ms(server, 0, images):.2f} ms\n"
    )


def drawn_jpeg(size_bytes: int) -> bytes:
    """Draw a film about as large as this."""
    drawn = Image.open(io.BytesIO(corpus.jpeg(1, 512)))
    for quality in range(95, 10, -5):
        buffer = io.BytesIO()
        drawn.save(buffer, "JPEG", quality=quality)
        if buffer.tell() <= size_bytes:
            break
    return buffer.getvalue()


def front_door_cpu() -> Figure:
    """Compare authentication, limits, parsing, routing, hop, record and answer with LitServe on the same body."""
    ms = costs()
    figure = Figure.of("front_door_cpu", ms["ours"], ms["litserve"], "LitServe, same body", UNIT)
    return marked(figure, OF_LITSERVE)


def front_door_cpu_vs_stock() -> Figure:
    """Compare the same with FastAPI ingress and second deployment, every setting Ray's default."""
    ms = costs()
    peer = "stock Serve graph of two deployments, same body"
    return marked(Figure.of("front_door_cpu_vs_stock", ms["ours"], ms["stock"], peer, UNIT), OF_STOCK)


UNIT = "CPU-ms a request, median"
BENCHMARKS = (front_door_cpu, front_door_cpu_vs_stock)
