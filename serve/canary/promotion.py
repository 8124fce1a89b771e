"""What a promotion needs, and how much of it is missing.

A step is left when every guardrail is shown to be within its margin (`serve.canary.noninferiority`), with
requests, pairs and time enough. "Not enough evidence" is a state of its own: how much more it takes is reckoned
from what came so far.
"""

import math
from dataclasses import dataclass

from serve.canary.evidence import Evidence
from serve.canary.guardrails import BY_NAME, FAILURES, FAULTS, Step
from serve.canary.hypotheses import P99
from serve.canary.noninferiority import NonInferiorityTest, remaining_sample_size
from serve.canary.sliding_window import CANARY


@dataclass(frozen=True, kw_only=True)
class RemainingEvidence:
    """How much more it takes before a promotion can be shown to be safe, if things stay as they are."""

    requests: int
    """Canary requests, of patients not yet seen in this step."""
    pairs: int
    """Mirrored images, of such patients."""
    minutes: float | None
    """At the present rate of both; None when nothing comes."""
    never: tuple[str, ...] = ()
    """Guardrails whose rates, as they are, are not within the margin."""

    def in_words(self) -> str:
        """Return one line for people."""
        parts = [f"not within the margin as things are: {', '.join(self.never)}"] if self.never else []
        parts += [f"{self.requests} more canary requests"] if self.requests else []
        parts += [f"{self.pairs} more mirrored images"] if self.pairs else []
        when = "never at the present rate" if self.minutes is None else f"{self.minutes:g} minutes"
        return f"not enough evidence; missing: {', '.join([*parts, when])}"


def required_tests(evidence: Evidence, step: Step) -> list[NonInferiorityTest]:
    """Return what has to be shown before the next step, as far as there is traffic to show it.

    Between 0 and 1, the differences to the champion. At 1 the champion has no traffic: its part are the absolute
    bounds, and mirrored images where there are any. At 0 mirrored images are all there is.
    """
    counts, config = evidence.step, evidence.config
    tests: list[NonInferiorityTest] = []
    if not step.non_inferior:
        return tests
    if 0 < step.share < 1:
        names = [name for name in FAULTS if BY_NAME[name].test != "blocks" or evidence.slow_ms is not None]
        tests += [counts.difference_test(name, config.margins[name]) for name in names]
    elif step.share == 1:
        tests += [counts.rate_test(name, config.margins[name]) for name in FAILURES]
    if step.pairs or step.share == 0:
        tests.append(counts.mirrored_errors_test(config.margins["mirrored_errors"]))
        tests.append(counts.disagreement_test(config.disagreement_bound))
    return tests


def remaining_evidence(evidence: Evidence, step: Step, now: float) -> RemainingEvidence | None:
    """Return what is missing; None when the next step may come, unless an alarm speaks against it.

    Args:
        now: seconds since the epoch.
    """
    counts = evidence.step
    lasted_min = max(now - counts.entered_at, 0.0) / 60
    requests, pairs, never = _counts(evidence, step)
    minutes = [max(0.0, step.minutes - lasted_min)]
    for needed, had in ((requests, int(counts.patients_A[CANARY])), (pairs, counts.mirrored)):
        if needed:
            minutes.append(needed / (had / lasted_min) if had and lasted_min else math.inf)
    if not (requests or pairs or never or minutes[0]):
        return None
    longest = max(minutes)
    return RemainingEvidence(
        requests=requests,
        pairs=pairs,
        minutes=None if math.isinf(longest) else round(longest, 1),
        never=tuple(never),
    )


def _counts(evidence: Evidence, step: Step) -> tuple[int, int, list[str]]:
    """Return the missing canary requests and mirrored images, and the guardrails that cannot be shown."""
    counts, never = evidence.step, []
    requests = max(0, step.requests - int(counts.requests_A[CANARY]), _for_p99(evidence, step))
    pairs = max(0, step.pairs - counts.pairs)
    for test in required_tests(evidence, step):
        needed = remaining_sample_size(test, evidence.config.promote_alpha)
        if needed is None:
            never.append(test.name)
        elif BY_NAME[test.name].source == "pairs":
            pairs = max(pairs, needed)
        else:
            requests = max(requests, math.ceil(needed * step.share))
    if _p99_is_over(evidence, step):
        never.append("P99")
    if _fails_at_full_traffic(evidence, step) and "errors" not in never:
        never.append("errors")
    return requests, pairs, never


def _for_p99(evidence: Evidence, step: Step) -> int:
    """Return how many canary requests are missing before a P99 is worth its name."""
    if not step.non_inferior or not step.share:
        return 0
    return max(0, evidence.config.window_requests - int(evidence.step.requests_A[CANARY]))


def _p99_is_over(evidence: Evidence, step: Step) -> bool:
    """Tell whether the canary's P99 of this step is above what a promotion needs."""
    requests = int(evidence.step.requests_A[CANARY])
    if requests < evidence.config.window_requests or not step.share:
        return False
    return evidence.step.over_promote > P99 * requests


def _fails_at_full_traffic(evidence: Evidence, step: Step) -> bool:
    """Tell whether more of the step's patients than the absolute bound met a failure, where only the canary answers.

    Asked of quick ramps too: with the champion out of traffic nothing compares, and a failing version would be
    promoted.
    """
    bad = sum(evidence.step.bad(name) for name in FAILURES)
    return step.share == 1 and bool(bad > evidence.config.error_bound * evidence.step.patients_A[CANARY])
