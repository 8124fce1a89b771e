"""What a promotion needs, and how much of it is missing.

A step is left when every guardrail is shown to be within its margin (`serve.noninferiority`), with requests, pairs
and time enough. "Not enough evidence" is a state of its own: how much more it takes is reckoned from what came so far.
"""

import math
from dataclasses import dataclass

from serve.evidence import Evidence
from serve.guardrails import Step
from serve.hypotheses import allowed
from serve.noninferiority import Question
from serve.noninferiority import missing as patients_missing
from serve.step_counts import FAULTS
from serve.window import CANARY

MIRRORED = ("mirrored_errors", "disagreement")
"""Questions that mirrored images answer."""


@dataclass(frozen=True, kw_only=True)
class Missing:
    """How much more it takes before a promotion can be shown to be safe, if things stay as they are."""

    requests: int
    """Canary requests, of patients not yet met in this step."""
    pairs: int
    """Mirrored images, of such patients."""
    minutes: float | None
    """At the present rate of both; None when nothing comes."""
    never: tuple[str, ...] = ()
    """Guardrails whose rates, as they are, are not within the margin."""

    def in_words(self) -> str:
        """One line for people."""
        parts = [f"not within the margin as things are: {', '.join(self.never)}"] if self.never else []
        parts += [f"{self.requests} more canary requests"] if self.requests else []
        parts += [f"{self.pairs} more mirrored images"] if self.pairs else []
        when = "never at the present rate" if self.minutes is None else f"{self.minutes:g} minutes"
        return f"not enough evidence; missing: {', '.join([*parts, when])}"


def questions(evidence: Evidence, step: Step) -> list[Question]:
    """What has to be shown before the next step, as far as there is traffic to show it.

    Between 0 and 1, the differences to the champion. At 1 the champion answers nobody: its part are the absolute
    bounds, and mirrored images where there are any. At 0 mirrored images are all there is.
    """
    counts, config = evidence.step, evidence.config
    asked: list[Question] = []
    if not step.non_inferior:
        return asked
    if 0 < step.share < 1:
        names = [name for name in FAULTS if name != "latency" or evidence.slow_ms is not None]
        asked += [counts.question(name, getattr(config.margins, name)) for name in names]
    elif step.share == 1:
        asked += [
            counts.absolute(name, getattr(config.margins, name)) for name in ("errors", "invalid_outputs")
        ]
    if step.pairs or step.share == 0:
        asked.append(counts.mirrored_errors(config.margins.mirrored_errors))
        asked.append(counts.disagreement(config.disagreement_bound))
    return asked


def missing(evidence: Evidence, step: Step, now: float) -> Missing | None:
    """What is missing; None when the next step may come, unless an alarm speaks against it."""
    counts, config = evidence.step, evidence.config
    lasted = max(now - counts.entered_at, 0.0) / 60
    needs = {one.name: patients_missing(one, config.promote_alpha) for one in questions(evidence, step)}
    never = [name for name, need in needs.items() if need is None]
    requests = max(0, step.requests - int(counts.requests_A[CANARY]), _for_p99(evidence, step))
    pairs = max(0, step.pairs - counts.pairs)
    for name, need in needs.items():
        if name in MIRRORED:
            pairs = max(pairs, need or 0)
        else:
            requests = max(requests, math.ceil((need or 0) * step.share))
    if _p99_is_over(evidence, step):
        never.append("P99")
    if _errs_at_full(evidence, step) and "errors" not in never:
        never.append("errors")
    minutes = [max(0.0, step.minutes - lasted)]
    for need, had in ((requests, int(counts.patients_A[CANARY])), (pairs, counts.mirrored)):
        if need:
            minutes.append(need / (had / lasted) if had and lasted else math.inf)
    if not (requests or pairs or never or minutes[0]):
        return None
    longest = max(minutes)
    return Missing(
        requests=requests,
        pairs=pairs,
        minutes=None if math.isinf(longest) else round(longest, 1),
        never=tuple(never),
    )


def _for_p99(evidence: Evidence, step: Step) -> int:
    """Canary requests that are missing before a P99 is worth its name."""
    if not step.non_inferior or not step.share:
        return 0
    return max(0, evidence.config.window_requests - int(evidence.step.requests_A[CANARY]))


def _p99_is_over(evidence: Evidence, step: Step) -> bool:
    """Whether the canary's P99 of this step is above what a promotion needs."""
    requests = int(evidence.step.requests_A[CANARY])
    if requests < evidence.config.window_requests or not step.share:
        return False
    return evidence.step.over_promote > allowed(evidence.config, "over_promote") * requests


def _errs_at_full(evidence: Evidence, step: Step) -> bool:
    """Whether more than the absolute bound of the step's patients met an error, where nobody but the canary answers.

    Asked of quick ramps too: with the champion out of traffic nothing compares, and a failing version would be crowned.
    """
    counts = evidence.step
    bad = (
        counts.bad_AF[CANARY, FAULTS.index("errors")] + counts.bad_AF[CANARY, FAULTS.index("invalid_outputs")]
    )
    return step.share == 1 and bool(bad > evidence.config.error_bound * counts.patients_A[CANARY])
