"""The benchmark of the canary's decisions: rollouts simulated by the thousand, ours beside fixed rules.

Ours is the production code itself, `serve.canary.evidence` and `serve.canary.verdict`, given the simulated
requests; every guardrail is on. A false rollback is one of a canary that is as good as the champion, also when
both fail.
"""

import math
import statistics
import sys
from dataclasses import dataclass, field

import numpy as np

from data.taxonomy import taxonomy
from jobs.bench.canary_peers import PEERS, Minutes, requests_until
from jobs.bench.figure import Figure
from jobs.runtime.entry import JobError
from serve.canary.evidence import Evidence
from serve.canary.guardrails import GuardrailConfig, Step
from serve.canary.observations import Pairs, Requests
from serve.canary.simulation import GOOD, SLOW_MS, Quality, Traffic, draw, with_errors
from serve.canary.verdict import alarm

OURS = "Raydiology"
ROLLOUTS, RATES, SHARE = 2000, (2.0, 10.0, 50.0), 0.1
FALSE_AT_MOST, CAUGHT_WITHIN = 0.05, {0.05: 120, 0.20: 20}
MINUTES_UNTIL_CAUGHT = {2.0: 60, 10.0: 40, 50.0: 25}
"""How long a stream with a bad canary is drawn; the slowest rule needs four intervals of five minutes."""


@dataclass(frozen=True, kw_only=True)
class Scenario:
    name: str
    canary: Quality
    champion: Quality

    @property
    def fair(self) -> bool:
        """True where a rollback would be false."""
        return self.canary == self.champion


SCENARIOS = (
    Scenario(name="both good", canary=GOOD, champion=GOOD),
    Scenario(name="both 1.5 % errors", canary=with_errors(0.015), champion=with_errors(0.015)),
    Scenario(name="canary 5 % errors", canary=with_errors(0.05), champion=GOOD),
    Scenario(name="canary 20 % errors", canary=with_errors(0.20), champion=GOOD),
)


@dataclass(kw_only=True)
class Row:
    """A scenario at a rate: for each rule, canary requests until the rollback in every rollout."""

    scenario: Scenario
    rate: float
    until: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in (OURS, *PEERS)})

    def rolled_back(self, rule: str) -> float:
        return statistics.mean(math.isfinite(requests) for requests in self.until[rule])

    def median(self, rule: str) -> float:
        return statistics.median(self.until[rule])

    def line(self) -> str:
        fair = self.scenario.fair
        figures = [
            f"{self.rolled_back(rule):.3f}" if fair else f"{self.median(rule):.0f}" for rule in self.until
        ]
        return f"| {self.scenario.name} | {self.rate:g} | {' | '.join(figures)} |"


def config() -> GuardrailConfig:
    return GuardrailConfig(labels=taxonomy().names, slow_ms=SLOW_MS)


def ends(requests: Requests, minutes: int, *, closely: bool) -> list[int]:
    """Return where ours is looked at: each minute, and `closely` after every canary request that failed.

    E-values keep their maximum, so that looking seldom overlooks nothing; a rollback is only seen later.
    """
    failed = np.flatnonzero(closely & requests.canary_N & (requests.error_N | requests.invalid_N)) + 1
    minute = np.searchsorted(requests.at_N, np.arange(60, 60 * minutes + 1, 60))
    return [end for end in np.unique(np.concatenate([failed, minute])).tolist() if end]


def until_rollback(requests: Requests, pairs: Pairs, looks: list[int]) -> float:
    """Count canary requests until our verdict is to roll back; infinite when it never is."""
    evidence = Evidence(config(), started_at=0.0)
    evidence.enter(Step(share=SHARE), number=1, at=0.0)
    done = mirrored = 0
    for end in looks:
        evidence.take_requests(requests[done:end])
        upto = int(np.searchsorted(pairs.at_N, requests.at_N[end - 1], side="right"))
        evidence.take_pairs(pairs[mirrored:upto])
        done, mirrored, harm = end, upto, alarm(evidence)
        if harm is not None and harm[0] == "roll_back":
            return float(requests.canary_N[:end].sum())
    return math.inf


def simulate(scenario: Scenario, rate: float, rollouts: int) -> Row:
    row = Row(scenario=scenario, rate=rate)
    minutes = 60 if scenario.fair else MINUTES_UNTIL_CAUGHT[rate]
    traffic = Traffic(requests_a_second=rate, minutes=minutes, share=SHARE)
    for seed in range(rollouts):
        requests, pairs = draw(
            traffic, scenario.canary, scenario.champion, np.random.default_rng([seed, int(rate)])
        )
        looks = ends(requests, minutes, closely=not scenario.fair)
        row.until[OURS].append(until_rollback(requests, pairs, looks))
        seen = Minutes(requests, minutes)
        for name, rule in PEERS.items():
            row.until[name].append(requests_until(seen, rule(seen)))
    return row


def table(rows: list[Row]) -> str:
    rules = (OURS, *PEERS)
    head = f"| scenario | requests/s | {' | '.join(rules)} |\n|{'---|' * (2 + len(rules))}"
    return "\n".join([head, *(row.line() for row in rows)])


def check(rows: list[Row]) -> None:
    """Refuse figures that break what the decisions promise."""
    for row in rows:
        name, rate = row.scenario.name, row.rate
        if row.scenario.fair and row.rolled_back(OURS) > FALSE_AT_MOST:
            raise JobError(f"{name} at {rate:g}/s: {row.rolled_back(OURS):.3f} were rolled back falsely")
        if not row.scenario.fair and row.median(OURS) > CAUGHT_WITHIN[row.scenario.canary.errors]:
            raise JobError(f"{name} at {rate:g}/s: caught after {row.median(OURS):.0f} canary requests")


def canary_decisions() -> Figure:
    rows = []
    for scenario in SCENARIOS:
        for rate in RATES:
            rows.append(simulate(scenario, rate, ROLLOUTS))
            sys.stdout.write(f"{rows[-1].line()}\n")
            sys.stdout.flush()
    check(rows)
    fair = [row for row in rows if row.scenario.fair]
    ours = max(row.rolled_back(OURS) for row in fair)
    best = min(PEERS, key=lambda name: max(row.rolled_back(name) for row in fair))
    peer = max(row.rolled_back(best) for row in fair)
    return Figure.of("canary_decisions", ours, peer, f"{best}, the best of {', '.join(PEERS)}", UNIT)


UNIT = "share of good canaries rolled back, worst rate and scenario"
BENCHMARKS = (canary_decisions,)
