"""What identifies and describes a dataset version: recipe, fingerprint of the inputs, manifest.

`data.dataset.etl` calls it. Pure: knows no store, no database and no Ray.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from cluster.secrets import keyed_hash
from data.catalog.quarantine_review import Reviewed
from data.catalog.shared_files import Others
from data.dataset import rows
from data.dataset.groups import WOULD_JOIN_TWO_SIDES
from data.dataset.near_duplicates import NEAR_VERSION
from data.dataset.rows import Assembly
from data.dataset.split import SHARES, SPLITS
from data.imaging.preprocess import PREPROCESS_VERSION, PixelConfig
from data.imaging.quality import QUALITY_VERSION
from data.taxonomy import taxonomy

SYNTHETIC = "synthetic"
"""Sources whose names begin with it hold drawn images."""


def recipe(pixels: PixelConfig, seed: int) -> dict[str, Any]:
    """Return the settings that have a part in the version's name."""
    return {
        "pixels": asdict(pixels),
        "preprocess_version": PREPROCESS_VERSION,
        "quality_version": QUALITY_VERSION,
        "classes": list(taxonomy().names),
        "split": {
            "by": "keyed hash of the group",
            "shares": dict(SHARES),
            "seed": seed,
            "near_duplicates": NEAR_VERSION,
        },
    }


def fingerprint(recipe: Mapping[str, Any], key: bytes, reviewed: Reviewed, others: Others) -> str:
    """Hash all that the version follows from, before any image is decoded: 32 hexadecimal digits."""
    digest = hashlib.sha256()
    for item in (*reviewed.samples, *sorted(reviewed.waived.items()), *sorted(others.items())):
        digest.update(repr(item).encode() + b"\n")
    digest.update(str(reviewed.rejected).encode())
    return keyed_hash(key, "etl inputs", repr(sorted(recipe.items())), digest.hexdigest())[:32]


def describe(
    recipe: Mapping[str, Any],
    reviewed: Reviewed,
    assembly: Assembly,
    rejects: Sequence[Mapping[str, Any]],
    git_commit: str,
) -> dict[str, Any]:
    """Return the manifest of the version, but for its parts and parents."""
    images = {(row.source, row.sha256) for row in assembly.rows}
    licenses = Counter(row.license for row in reviewed.samples if (row.source, row.sha256) in images)
    sources = Counter(row.source for row in assembly.rows)
    return {
        "format": 1,
        "version": rows.version_of(assembly.rows, recipe),
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "git_commit": git_commit,
        "parents": [],
        "settings": recipe,
        "classes": recipe["classes"],
        "counts": rows.counts(assembly.rows, recipe["classes"]),
        "groups": {
            split: len({row.group_key for row in assembly.rows if row.split == split}) for split in SPLITS
        },
        "quarantined": _quarantined(reviewed, assembly, rejects),
        "near_duplicates": assembly.near_duplicates,
        "withheld": [
            {"source": row.source, "sha256": row.sha256, "sides": list(row.sides)}
            for row in assembly.withheld
        ],
        "sources": dict(sorted(sources.items())),
        "licenses": dict(sorted(licenses.items())),
        "synthetic": all(source.startswith(SYNTHETIC) for source in sources),
    }


def _quarantined(
    reviewed: Reviewed, assembly: Assembly, rejects: Sequence[Mapping[str, Any]]
) -> dict[str, int]:
    """Count the images left out, by reason."""
    counts = Counter(str(row["reason"]) for row in rejects)
    counts["rejected"] = reviewed.rejected
    counts["duplicate"] = assembly.duplicates
    counts["conflicting_label"] = len(assembly.conflicting)
    counts[WOULD_JOIN_TWO_SIDES] = len(assembly.withheld)
    return {reason: number for reason, number in sorted(counts.items()) if number}
