"""The benchmarks, each a ratio measured in one run, written to docs/benchmarks.json and docs/benchmarks.md.

Ours and the peer take turns, so that a noisy machine hits both; medians are compared. A figure that has no peer
is given with peer 1 in its unit.
"""

import io
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

from cluster.objects import ObjectStore
from cluster.releases import bundles
from cluster.releases.registry import VIT, Registry
from cluster.settings import PROJECT_ROOT, Settings
from data.imaging.preprocess import PixelConfig, decode, scale
from data.synthetic.generator import SyntheticConfig, draw, subjects
from jobs.bench import canary, etl, export, front_door, serving, strategies, train
from jobs.bench.figure import Figure, in_turns
from jobs.runtime import entry, markdown

DOCS = PROJECT_ROOT / "docs"
ROUNDS = 60
WARM_UP = 5
SIDE = 1024


@dataclass(frozen=True, kw_only=True)
class Arguments:
    only: str | None = None
    """Run this one alone."""

    def __post_init__(self) -> None:
        if self.only is not None and self.only not in BENCHMARKS:
            raise ValueError(f"there is no benchmark {self.only!r}; there are {', '.join(BENCHMARKS)}")


def image() -> bytes:
    """Draw a grey JPEG of a synthetic chest film, 1024 pixels wide, from a seed."""
    config = SyntheticConfig(images=10, side=SIDE)
    subject = next(subjects(config))
    drawn, _, _ = draw(config, subject, 1, np.random.default_rng(subject.seed))
    buffer = io.BytesIO()
    Image.fromarray(decode(drawn).shown_HW).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def interleaved(ours: Callable[[], Any], peer: Callable[[], Any]) -> tuple[float, float]:
    """Return the median milliseconds of each, which take turns."""
    seconds = in_turns({"ours": ours, "peer": peer}, rounds=ROUNDS, warm_up=WARM_UP, clock=time.perf_counter)
    return 1000 * seconds["ours"], 1000 * seconds["peer"]


def predict() -> Figure:
    """Compare `POST /v1/predictions` at concurrency 1, durable record and image included, with the bare model: the same
    file decoded and classified in this process by the same bundle.
    """
    from serve.classifier.classifier import Classifier

    settings = Settings.from_env()
    registry = Registry(settings)
    version = registry.version_by_alias(VIT, "champion")
    if version is None:
        raise entry.JobError("nothing is served; run `make demo` first")
    blob = image()
    with (
        tempfile.TemporaryDirectory() as folder,
        httpx.Client(base_url=settings.api_url, timeout=30) as api,
    ):
        bundles.fetch(ObjectStore(settings), registry.bundle_key(VIT, version), Path(folder))
        classifier = Classifier(Path(folder), threads=2)
        headers = {"Authorization": f"Bearer {settings.client_key}"}

        def post() -> None:
            answer = api.post("/v1/predictions", files={"file": ("x.jpg", blob)}, headers=headers)
            answer.raise_for_status()

        def bare() -> None:
            pixels_HW = scale(decode(blob).shown_HW, classifier.card.pixels)
            classifier.probabilities(pixels_HW[None])

        ours, peer = interleaved(post, bare)
    return Figure.of("predict", ours, peer, "bare decode and forward in one process", "ms, median")


def transform() -> Figure:
    """Compare the pixel transform with Pillow alone decoding and resizing the same JPEG."""
    blob, config = image(), PixelConfig(side=224)

    def ours() -> None:
        scale(decode(blob).shown_HW, config)

    def pillow() -> None:
        Image.open(io.BytesIO(blob)).convert("L").resize((224, 224), Image.Resampling.BILINEAR)

    return Figure.of("transform", *interleaved(ours, pillow), "Pillow: open, grey, resize", "ms, median")


MODULES = (canary, front_door, etl, export, serving, strategies, train)
BENCHMARKS: dict[str, Callable[[], Figure]] = {
    benchmark.__name__: benchmark
    for benchmark in (predict, transform, *(each for module in MODULES for each in module.BENCHMARKS))
}
"""By the names of their functions, which are those of their figures."""


def work(arguments: Arguments) -> None:
    """Run benchmarks and write their figures; those of the others stay as they were."""
    path = DOCS / "benchmarks.json"
    figures = json.loads(path.read_text()) if path.exists() else {}
    for name in [arguments.only] if arguments.only else BENCHMARKS:
        figure = asdict(BENCHMARKS[name]())
        figures[name] = figure
        sys.stdout.write(json.dumps(figure) + "\n")
    path.write_text(json.dumps(figures, indent=1, sort_keys=True) + "\n")
    (DOCS / "benchmarks.md").write_text(table(list(figures.values())))


def table(figures: list[dict[str, Any]]) -> str:
    """Return docs/benchmarks.md."""
    header = ("name", "ours", "peer", "peer is", "ours / peer", "unit")
    keys = ("name", "ours", "peer", "peer_name", "ratio", "unit")
    rows = ([figure[key] for key in keys] for figure in figures)
    title = "# Benchmarks\n\nWritten by `make bench`; both sides in one run, taking turns.\n\n"
    return title + markdown.table(header, rows)
