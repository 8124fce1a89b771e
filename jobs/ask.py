"""Ask the running service over HTTP, as a client would: test-split images with known truth, some explained."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import httpx
import numpy as np

from cluster import progress
from cluster.objects import ObjectStore
from cluster.settings import Settings
from data.catalog import tables
from data.catalog.originals import Originals
from data.dataset import versions
from data.taxonomy import taxonomy
from jobs.runtime import entry

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, kw_only=True)
class AskConfig:
    per_class: int = 2
    """Test images of each class."""
    explanations: int = 3
    """How many of the answers are explained, one of a class; each takes the language model seconds."""
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Arguments:
    dataset_version: str | None = None
    """Whose test split to ask about; default: the newest."""
    ask: AskConfig = AskConfig()


def ask(settings: Settings, dataset_version: str, config: AskConfig, report: Progress) -> dict[str, Any]:
    """Post images, fetch explanations, compare with the truth.

    Returns:
        rows ({image, source, truth, answer, confidence, abstained, triage, explanation, fallback}), how many
        were right, and the latency of a prediction.
    """
    if settings.client_key is None:
        raise entry.JobError("RAYDIOLOGY_CLIENT_KEY is not set: asking needs an API key of role client")
    store = ObjectStore(settings)
    originals = Originals.of(settings)
    split = versions.load_split(store, dataset_version, "test")
    chosen = _choose(split.labels_N, config)
    rows: list[dict[str, Any]] = []
    latencies_ms: list[float] = []
    headers = {"Authorization": f"Bearer {settings.client_key}"}
    with httpx.Client(base_url=settings.api_url, headers=headers, timeout=120) as api:
        for nth in chosen:
            blob = originals.get(originals.key_of(split.sha256s[nth]))
            started_at = time.perf_counter()
            answer = api.post("/v1/predictions", files={"file": ("image", blob)})
            latencies_ms.append((time.perf_counter() - started_at) * 1000)
            if answer.status_code != 201:
                raise entry.JobError(f"the API answered {answer.status_code}: {answer.text[:300]}")
            body = answer.json()
            rows.append(
                {
                    "image": split.sha256s[nth][:12],
                    "source": split.sources[nth],
                    "truth": taxonomy().names[int(split.labels_N[nth])],
                    "answer": body["label"],
                    "confidence": body["confidence"],
                    "abstained": body["abstained"],
                    "triage": body["triage"],
                    "link": body["links"]["explanation"],
                }
            )
            report(len(rows), len(chosen) + config.explanations, f"{rows[-1]['truth']} → {body['label']}")
        for nth, row in enumerate(_one_a_class(rows)[: config.explanations]):
            answer = api.get(row["link"])
            answer.raise_for_status()
            row["explanation"], row["fallback"] = answer.json()["text"], answer.json()["fallback"]
            report(len(rows) + nth + 1, len(rows) + config.explanations, f"explained {row['answer']}")
    for row in rows:
        del row["link"]
    return {
        "rows": rows,
        "right": sum(row["answer"] == row["truth"] for row in rows),
        "asked": len(rows),
        "latency_p50_ms": round(float(np.median(latencies_ms)), 1),
    }


def _choose(labels_N: np.ndarray, config: AskConfig) -> list[int]:
    """Draw up to `per_class` images of each class, from the seed."""
    random = np.random.default_rng(config.seed)
    chosen: list[int] = []
    for label in np.unique(labels_N):
        (where,) = np.nonzero(labels_N == label)
        chosen += random.permutation(where)[: config.per_class].tolist()
    return chosen


def _one_a_class(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Sort the rows so that the first one of each class comes first."""
    first = list({row["truth"]: row for row in reversed(rows)}.values())[::-1]
    return first + [row for row in rows if not any(row is other for other in first)]


def work(arguments: Arguments) -> dict[str, Any]:
    settings = Settings.from_env()
    version = arguments.dataset_version or tables.newest_version(settings)
    return ask(settings, version, arguments.ask, partial(progress.report, "ask"))


if __name__ == "__main__":
    entry.main("ask", Arguments, work)
