"""From the evidence of a rollout to what is done: roll back, freeze, hold, promote, or wait for more.

The order is the order of harm. A canary that is worse than the champion is rolled back; a bound that both break
freezes the ramp, since taking the canary away would cure nothing; a promotion needs everything shown to be within its
margin, and "no alarm yet" shows nothing. A manual pause changes none of it: the controller goes on asking, and leaves
only "promote" undone. Pure arithmetic over `serve.evidence`.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import Literal

from serve.evidence import Evidence
from serve.guardrails import Step
from serve.hypotheses import EVENTS, allowed, alpha_of
from serve.noninferiority import upper_bound
from serve.promotion import Missing, missing, questions
from serve.step_counts import FAULTS
from serve.window import BOUNDS, CANARY, CHAMPION

Action = Literal["roll_back", "freeze", "hold", "promote", "wait"]
"""`freeze`: keep the weights, alert, both versions are hit. `hold`: the same, the canary is too slow to go on.
`wait`: not enough evidence, and `missing` says how much."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One guardrail as it stands."""

    name: str
    canary: float | None
    """Its rate in this step, each patient once; a count for `feedback` and `deaths`."""
    champion: float | None
    evidence: float
    """The most that betting against "no worse than the champion" (or the bound) ever won; 1 at the start."""
    needed: float
    """What it takes to roll back: 1 over the guardrail's budget."""
    upper: float | None = None
    """The difference (or the rate) is below this, with confidence 1 - promote_alpha."""
    margin: float | None = None
    """What `upper` has to be below for a promotion; None where nothing is asked."""

    @property
    def fired(self) -> bool:
        return self.evidence >= self.needed


@dataclass(frozen=True, kw_only=True)
class Verdict:
    action: Action
    why: str
    """One line for people, without patient data."""
    guardrails: tuple[Figure, ...]
    p99_ms: tuple[float | None, float | None]
    """Of canary and champion in this step, within a tenth; None without requests."""
    missing: Missing | None = None
    alert: bool = False
    retrain: bool = False
    """Whether the input has drifted for both versions, which only training cures."""


def verdict(evidence: Evidence, step: Step, now: float) -> Verdict:
    """What the evidence asks for, at any time.

    Args:
        step: the step that `evidence.enter` was told of.
        now: seconds since the epoch; it only says how long the step has lasted.
    """
    if step.share != evidence.step.share:
        raise ValueError(f"the evidence is of a step at {evidence.step.share:.1%}, not at {step.share:.1%}")
    canary, champion = (one.quantile(0.99) for one in evidence.step.latencies_A)
    say = partial(Verdict, guardrails=tuple(_figures(evidence, step)), p99_ms=(canary, champion))
    found = alarm(evidence)
    if found is not None:
        action, why, retrain = found
        return say(action=action, why=why, alert=True, retrain=retrain)
    lacking = missing(evidence, step, now)
    if lacking is None:
        return say(action="promote", why="everything is shown to be within its margin")
    return say(action="wait", why=lacking.in_words(), missing=lacking)


def alarm(evidence: Evidence) -> tuple[Action, str, bool] | None:
    """What has to be done against harm: action, why, whether to retrain. None when nothing is shown to be wrong."""
    if worse := worse_than_champion(evidence):
        return "roll_back", f"the canary is worse than the champion: {', '.join(worse)}", False
    broken = [(bound, _champion_is_under(evidence, bound)) for bound in BOUNDS if _breaks(evidence, bound)]
    for bound, under in broken:
        if under and bound != "over_promote":
            return "roll_back", f"for {_minutes(evidence)} the canary had {_says(evidence, bound)}", False
    for bound, under in broken:
        if not under:
            return "freeze", f"the champion is not shown to be better: {_says(evidence, bound)}", False
    if drifted := _drifted(evidence):
        return "freeze", f"the champion's answers drift too: {', '.join(drifted)}", True
    if broken:
        return "hold", f"for {_minutes(evidence)} the canary had {_says(evidence, 'over_promote')}", False
    return None


def worse_than_champion(evidence: Evidence) -> list[str]:
    """Guardrails whose evidence ever reached what their budget asks for."""
    return [name for name, won in _won(evidence).items() if won >= math.log(_needed(evidence, name))]


def _won(evidence: Evidence) -> dict[str, float]:
    """The logarithm of each relative guardrail's best wealth; drift's is its best label's share of the budget."""
    labels = evidence.config.labels
    names = (*EVENTS, "latency", "disagreement")
    drift = max(evidence.wealth.peak(f"drift:{label}") for label in labels) - math.log(len(labels))
    won = {name: evidence.wealth.peak(name) for name in names}
    frozen = evidence.wealth.peak("frozen_errors") if _champion_was_under(evidence, "errors") else 0.0
    gross = evidence.wealth.peak("gross_errors") if _champion_was_under_gross(evidence) else 0.0
    return {**won, "frozen_errors": frozen, "gross_errors": gross, "drift": max(drift, 0.0)}


def _needed(evidence: Evidence, name: str) -> float:
    budget = evidence.config.budget
    if name in ("frozen_errors", "gross_errors"):
        return 2 / budget.frozen_errors
    return 1 / float(getattr(budget, name))


# ---- absolute rules


def _breaks(evidence: Evidence, bound: str) -> bool:
    """Over the bound for the whole window, with requests enough, not by one burst and not by chance."""
    window, config = evidence.window, evidence.config
    return (
        window.full
        and window.requests(CANARY) >= config.window_requests
        and window.sustained(CANARY, bound, allowed(config, bound))
        and evidence.wealth.now(f"canary_over:{bound}") >= math.log(1 / alpha_of(config, bound))
    )


def _champion_is_under(evidence: Evidence, bound: str) -> bool:
    """Shown, and true in the window; without concurrent traffic it is the champion of earlier in this rollout."""
    if not evidence.window.requests(CHAMPION):
        return _champion_was_under(evidence, bound)
    under_now = evidence.window.share(CHAMPION, bound) <= allowed(evidence.config, bound)
    shown = evidence.wealth.now(f"champion_under:{bound}") >= math.log(1 / alpha_of(evidence.config, bound))
    return under_now and shown


def _champion_was_under(evidence: Evidence, bound: str) -> bool:
    """Shown at any time of the rollout."""
    needed = math.log(1 / alpha_of(evidence.config, bound))
    return evidence.wealth.peak(f"champion_under:{bound}") >= needed


def _champion_was_under_gross(evidence: Evidence) -> bool:
    return evidence.wealth.peak("champion_under_gross") >= math.log(_needed(evidence, "gross_errors"))


def _says(evidence: Evidence, bound: str) -> str:
    share, config = evidence.window.share(CANARY, bound), evidence.config
    if bound == "errors":
        return f"{share:.1%} errors where {config.error_bound:.1%} are allowed"
    limit = config.roll_back_p99_ms if bound == "over_roll_back" else config.promote_p99_ms
    return f"a P99 above {limit:.0f} ms ({share:.1%} of the requests are slower)"


def _minutes(evidence: Evidence) -> str:
    return f"{evidence.config.window_minutes} minutes"


def _drifted(evidence: Evidence) -> list[str]:
    """Labels that the champion gives more, or less, often than its frozen mix allows."""
    if evidence.config.label_shares is None:
        return []
    mix = [f"{way}:{label}" for label in evidence.config.labels for way in ("more", "less")]
    needed = math.log(len(mix) / evidence.config.freeze_alpha)
    return [row.replace(":", " ") for row in mix if evidence.wealth.peak(row) >= needed]


# ---- figures


def _figures(evidence: Evidence, step: Step) -> list[Figure]:
    """Every relative guardrail, with what a promotion asks of it."""
    asked = {one.name: one for one in questions(evidence, step)}
    figures = []
    for name, won in _won(evidence).items():
        canary, champion = _rates(evidence, name)
        question = asked.get(name)
        figures.append(
            Figure(
                name=name,
                canary=canary,
                champion=champion,
                evidence=math.exp(min(won, 700.0)),
                needed=_needed(evidence, name),
                upper=None if question is None else upper_bound(question, evidence.config.promote_alpha),
                margin=None if question is None else question.margin,
            )
        )
    return figures


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
