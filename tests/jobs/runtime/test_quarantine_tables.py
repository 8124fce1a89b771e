"""The quarantine as it is shown: counted by source and reason."""

from datetime import UTC, datetime

from data.catalog.quarantine_review import Entry
from jobs.runtime.quarantine_tables import _groups


def entry(number: int, reason: str, decision: str | None = None) -> Entry:
    return Entry(
        id=number, source="s", stage="etl", reason=reason, detail="", decision=decision, releasable=reason == "lateral",
        quarantined_at=datetime(2026, 11, 26, tzinfo=UTC),
    )  # fmt: skip


def test_images_are_counted_by_reason_and_decision() -> None:
    groups = _groups([entry(1, "lateral"), entry(2, "lateral", "released"), entry(3, "corrupt", "rejected")])
    counts = [
        {name: group[name] for name in ("reason", "count", "open", "released", "rejected")}
        for group in groups
    ]
    assert counts == [
        {"reason": "corrupt", "count": 1, "open": 0, "released": 0, "rejected": 1},
        {"reason": "lateral", "count": 2, "open": 1, "released": 1, "rejected": 0},
    ]
    assert [group["releasable"] for group in groups] == [False, True]
