"""Reads every format in which the evidence of a rollout was ever stored, as the present one.

Format 1 is what `serve.canary.evidence.Evidence` stores. Evidence without `format` is older: it has the same
fields, and the oldest has no hypotheses about gross errors.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from serve.canary.e_process import untouched_row

FORMAT = 1
ADDED = ("gross_errors", "champion_under_gross")
"""Hypotheses that the oldest evidence does not have."""


class FormatError(ValueError):
    """The stored evidence cannot be used; one line that says why."""


def read_evidence(stored: Mapping[str, Any], hypotheses: Sequence[str]) -> dict[str, Any]:
    """Return stored evidence in the present format.

    Args:
        hypotheses: the names that it must have, in order.
    Raises:
        FormatError: it was written by a later version, or with other guardrails or labels.
    """
    version = stored.get("format", 0)
    if version not in (0, FORMAT):
        raise FormatError(f"this evidence has format {version}, and this version reads up to {FORMAT}")
    wealth = stored["wealth"]
    rows = dict(wealth["rows"])
    if version == 0 and set(rows) == set(hypotheses) - set(ADDED):
        fresh = untouched_row(wealth["minute"], wealth["step"])
        rows = {name: rows.get(name, fresh) for name in hypotheses}
    if list(rows) != list(hypotheses):
        raise FormatError(
            "this evidence was gathered with other guardrails or labels: begin the rollout anew"
        )
    return {**stored, "wealth": {**wealth, "rows": rows}}
