"""Tables as a version's files give them, and what validation says about them."""

import hashlib
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from data.dataset.parts import PART
from data.validation import profile
from data.validation.checks import validate
from data.validation.config import Baseline, Check, Subject, ValidationConfig, failed

CLASSES = ("normal", "covid19", "tuberculosis")


SPLITS = ("train", "validation", "test")


def digest(*parts: Any) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def table(images: int = 240, *, batch: int = 0, source: str = "a", seed: int = 0) -> pd.DataFrame:
    """Rows as a version's files give them: two images a patient, three classes, and their grey values."""
    rng = np.random.default_rng([seed, batch])
    rows = [
        {
            "sample_hash": digest(source, batch, n),
            "label": CLASSES[n % 3],
            "label_index": n % 3,
            "group_key": digest("g", source, batch, n // 2),
            "split": SPLITS[(n // 2) % 3],
            "source": source,
            "sha256": digest("f", source, batch, n),
            "sex": ("F", "M", None)[(n // 2) % 3],
            "age": float(20 + n // 2 % 60),
            "view": "PA",
            "site": None,
        }
        for n in range(images)
    ]
    frame = pa.Table.from_pylist(rows, schema=PART).drop_columns(["pixels"]).to_pandas()
    frame["mean"] = rng.normal(120, 20, images).astype(np.float32)
    frame["contrast"] = rng.normal(60, 6, images).astype(np.float32)
    frame["pixel_bytes"] = 32 * 32
    return frame


def subject(frame: pd.DataFrame, **described: Any) -> Subject:
    counts: dict[str, dict[str, int]] = {split: dict.fromkeys(CLASSES, 0) for split in SPLITS}
    if {"split", "label"} <= {*frame.columns}:
        for split, label in zip(frame["split"], frame["label"], strict=True):
            counts.setdefault(split, {}).setdefault(label, 0)
            counts[split][label] += 1
    manifest = {
        "classes": list(CLASSES),
        "counts": counts,
        "quarantined": {},
        "licenses": {"CC BY 4.0 (somebody)": len(frame)},
        "settings": {"pixels": {"side": 32}},
    }
    return Subject(rows=frame, described=manifest | described)


def baseline(frame: pd.DataFrame, **changes: Any) -> Baseline:
    made = Baseline(
        version="before",
        profile=profile.of(frame),
        same_pixels=True,
        sample_hashes=frozenset(frame["sample_hash"]),
        missing_sources=(),
    )
    return replace(made, **changes)


CONFIG = ValidationConfig()


def checks(
    frame: pd.DataFrame,
    baseline: Baseline | None = None,
    config: ValidationConfig = CONFIG,
    **described: Any,
) -> dict[str, Check]:
    return {one.name: one for one in validate(subject(frame, **described), baseline, config)[0]}


def failures(found: dict[str, Check]) -> set[str]:
    return {one.name for one in failed(list(found.values()))}
