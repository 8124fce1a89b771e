"""Reads every format in which the evidence of a rollout was ever stored, as the present one.

Format 1 is what `serve.canary.evidence.Evidence` stores. Evidence without `format` is older: it has the same
fields, and the oldest has no hypotheses about gross errors. A hypothesis that evidence does not know yet begins as
if nothing had been seen, so that a rollout under way goes on where a guardrail was added.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from serve.canary.e_process import untouched_row

FORMAT = 1


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
    missing = set(hypotheses) - set(wealth["rows"])
    # those with a colon are one a label or a bound: where they are missing, labels or bounds are other ones
    if set(wealth["rows"]) - set(hypotheses) or any(":" in name for name in missing):
        raise FormatError(
            "this evidence was gathered with other guardrails or labels: begin the rollout anew"
        )
    untouched = untouched_row(wealth["minute"], wealth["step"])
    rows = {name: wealth["rows"].get(name, untouched) for name in hypotheses}
    return {**stored, "wealth": {**wealth, "rows": rows}}
