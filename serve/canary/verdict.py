"""From the evidence of a rollout to what is done: roll back, freeze, hold, promote, or wait for more.

The order is the order of harm. A canary that is worse than the champion is rolled back; a bound that both break
freezes the ramp, since taking the canary away would cure nothing; a promotion needs everything shown to be within its
margin, and "no alarm yet" shows nothing. A manual pause changes none of it: the controller goes on asking, and leaves
only "promote" undone. Pure arithmetic over `serve.canary.evidence`.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import Literal

from serve.canary.evidence import Evidence
from serve.canary.guardrails import BY_NAME, FAULTS, GUARDRAILS, Guardrail, Step, with_test
from serve.canary.hypotheses import allowed_share, alpha_of, canary_over, champion_under, names_of, needed
from serve.canary.noninferiority import upper_bound
from serve.canary.promotion import RemainingEvidence, remaining_evidence, required_tests
from serve.canary.sliding_window import CANARY, CHAMPION

Action = Literal["roll_back", "freeze", "hold", "promote", "wait"]
"""`freeze`: keep the weights, alert, both versions are hit. `hold`: the same, the canary is too slow to go on.
`wait`: not enough evidence, and `missing` says how much."""


@dataclass(frozen=True, kw_only=True)
class GuardrailStatus:
    """One guardrail as it stands."""

    name: str
    canary: float | None
    """Its rate in this step, each patient once; a count for `feedback` and `deaths`."""
    champion: float | None
    evidence: float
    """The largest e-value against "no worse than the champion" (or the bound) so far; 1 at the start."""
    needed: float
    """The e-value that rolls back: 1 over the guardrail's budget."""
    upper: float | None = None
    """The difference (or the rate) is below this, with confidence 1 - promote_alpha."""
    margin: float | None = None
    """What `upper` has to be below for a promotion; None where nothing is asked."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    action: Action
    why: str
    """One line for people, without patient data."""
    guardrails: tuple[GuardrailStatus, ...]
    p99_ms: tuple[float | None, float | None]
    """Of canary and champion in this step, within a tenth; None without requests."""
    missing: RemainingEvidence | None = None
    alert: bool = False
    retrain: bool = False
    """Whether the input has drifted for both versions, which only training cures."""


def decide(evidence: Evidence, step: Step, now: float) -> Verdict:
    """Decide what the evidence asks for, at any time.

    Args:
        step: the step that `evidence.enter` was told of.
        now: seconds since the epoch; it only says how long the step has lasted.
    """
    if step.share != evidence.step.share:
        raise ValueError(f"the evidence is of a step at {evidence.step.share:.1%}, not at {step.share:.1%}")
    canary_ms, champion_ms = (histogram.quantile(0.99) for histogram in evidence.step.latencies_A)
    verdict = partial(Verdict, guardrails=tuple(_statuses(evidence, step)), p99_ms=(canary_ms, champion_ms))
    harm = alarm(evidence)
    if harm is not None:
        action, why, retrain = harm
        return verdict(action=action, why=why, alert=True, retrain=retrain)
    remaining = remaining_evidence(evidence, step, now)
    if remaining is None:
        return verdict(action="promote", why="everything is shown to be within its margin")
    return verdict(action="wait", why=remaining.in_words(), missing=remaining)


def alarm(evidence: Evidence) -> tuple[Action, str, bool] | None:
    """Decide what to do against harm: action, why, whether to retrain. None when nothing is shown to be wrong."""
    if worse := worse_than_champion(evidence):
        return "roll_back", f"the canary is worse than the champion: {', '.join(worse)}", False
    broken = [
        (guardrail, _champion_is_under(evidence, guardrail))
        for guardrail in with_test("window")
        if _breaks(evidence, guardrail)
    ]
    for guardrail, under in broken:
        if under and guardrail.rolls_back:
            return (
                "roll_back",
                f"for {_minutes(evidence)} the canary had {_in_words(evidence, guardrail)}",
                False,
            )
    for guardrail, under in broken:
        if not under:
            return (
                "freeze",
                f"the champion is not shown to be better: {_in_words(evidence, guardrail)}",
                False,
            )
    if drifted := _drifted(evidence):
        return "freeze", f"the champion's answers drift too: {', '.join(drifted)}", True
    for guardrail, _ in broken:
        return "hold", f"for {_minutes(evidence)} the canary had {_in_words(evidence, guardrail)}", False
    return None


def worse_than_champion(evidence: Evidence) -> list[str]:
    """Return the guardrails whose e-value ever reached what their budget asks for."""
    return [
        name
        for name, log_e_value in _log_e_values(evidence).items()
        if log_e_value >= math.log(needed(BY_NAME[name], evidence.config))
    ]


def _log_e_values(evidence: Evidence) -> dict[str, float]:
    """Return the logarithm of the largest e-value of each guardrail that compares and rolls back."""
    rows = (row for row in GUARDRAILS if row.rolls_back and row.test != "window")
    return {row.name: _log_e_value(evidence, row) for row in rows}


def _log_e_value(evidence: Evidence, guardrail: Guardrail) -> float:
    """Return the logarithm of a guardrail's largest e-value; drift's is its best label's share of the budget."""
    if guardrail.test == "labels":
        names = names_of(guardrail, evidence.config)
        best = max(evidence.e_processes.max_log_e_value(name) for name in names)
        return max(best - math.log(len(names)), 0.0)
    if guardrail.test == "full_traffic" and not _champion_was_under(evidence, guardrail):
        return 0.0
    return evidence.e_processes.max_log_e_value(guardrail.name)


# ---- absolute guardrails


def _breaks(evidence: Evidence, guardrail: Guardrail) -> bool:
    """Tell whether the canary is over the bound for the whole window, not by one burst and not by chance."""
    window, config = evidence.window, evidence.config
    return (
        window.full
        and window.requests(CANARY) >= config.window_requests
        and window.sustained(CANARY, guardrail.key, allowed_share(guardrail, config))
        and evidence.e_processes.log_e_value(canary_over(guardrail)) >= _log_needed(evidence, guardrail)
    )


def _champion_is_under(evidence: Evidence, guardrail: Guardrail) -> bool:
    """Tell whether the champion is shown to be under the bound, and is in the window.

    Without concurrent traffic it is the champion of earlier in this rollout.
    """
    if not evidence.window.requests(CHAMPION):
        return _champion_was_under(evidence, guardrail)
    allowed = allowed_share(guardrail, evidence.config)
    under_now = evidence.window.share(CHAMPION, guardrail.key) <= allowed
    log_e_value = evidence.e_processes.log_e_value(champion_under(guardrail))
    return under_now and log_e_value >= _log_needed(evidence, guardrail)


def _champion_was_under(evidence: Evidence, guardrail: Guardrail) -> bool:
    """Tell whether the champion was shown to be under the bound at any time of the rollout."""
    log_e_value = evidence.e_processes.max_log_e_value(champion_under(guardrail))
    if guardrail.test == "full_traffic" and guardrail.champion_below is None:
        return log_e_value >= math.log(needed(guardrail, evidence.config))
    return log_e_value >= _log_needed(evidence, BY_NAME[guardrail.champion_below or guardrail.name])


def _log_needed(evidence: Evidence, guardrail: Guardrail) -> float:
    """Return the logarithm of the e-value that an absolute guardrail needs."""
    return math.log(1 / alpha_of(guardrail, evidence.config))


def _in_words(evidence: Evidence, guardrail: Guardrail) -> str:
    """Say by how much the canary is over a bound."""
    share, bound = (
        evidence.window.share(CANARY, guardrail.key),
        getattr(evidence.config, str(guardrail.bound)),
    )
    if guardrail.column == "failed_N":
        return f"{share:.1%} errors where {bound:.1%} are allowed"
    return f"a P99 above {bound:.0f} ms ({share:.1%} of the requests are slower)"


def _minutes(evidence: Evidence) -> str:
    return f"{evidence.config.window_minutes} minutes"


def _drifted(evidence: Evidence) -> list[str]:
    """Return the labels that the champion gives more, or less, often than its mix before the rollout allows."""
    names = [name for row in with_test("label_mix") for name in names_of(row, evidence.config)]
    if not names:
        return []
    log_needed = math.log(len(names) / evidence.config.freeze_alpha)
    e_processes = evidence.e_processes
    return [name.replace(":", " ") for name in names if e_processes.max_log_e_value(name) >= log_needed]


# ---- the status of each guardrail


def _statuses(evidence: Evidence, step: Step) -> list[GuardrailStatus]:
    """Return every guardrail that compares, with what a promotion asks of it."""
    tests = {test.name: test for test in required_tests(evidence, step)}
    statuses = []
    for name, log_e_value in _log_e_values(evidence).items():
        canary, champion = _rates(evidence, name)
        test = tests.get(name)
        statuses.append(
            GuardrailStatus(
                name=name,
                canary=canary,
                champion=champion,
                evidence=math.exp(min(log_e_value, 700.0)),
                needed=needed(BY_NAME[name], evidence.config),
                upper=None if test is None else upper_bound(test, evidence.config.promote_alpha),
                margin=None if test is None else test.margin,
            )
        )
    return statuses


def _rates(evidence: Evidence, name: str) -> tuple[float | None, float | None]:
    counts = evidence.step
    if name in FAULTS:
        return counts.rate_of(name, CANARY), counts.rate_of(name, CHAMPION)
    if name == "disagreement":
        return (counts.disagreements / counts.answered if counts.answered else None), None
    if name == "mirrored_errors":
        total = counts.mirrored
        return (counts.canary_only / total, counts.champion_only / total) if total else (None, None)
    if name in evidence.events:
        canary, champion = evidence.events[name]
        return float(canary), float(champion)
    return None, None
