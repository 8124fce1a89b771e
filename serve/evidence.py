"""Everything a rollout has shown so far: observations in, wealth of every guardrail out. Constant memory.

The controller gives it each observation once, in the order of the ledger, tells it when a step begins, and stores it
as plain JSON; what is read back goes on with the same bits, and so does what is rebuilt from the ledger, however the
stream is cut into batches. It decides nothing: `serve.verdict` does. Knows neither Ray, nor torch, nor a database.
"""

import math
from collections.abc import Iterator
from itertools import groupby, pairwise
from typing import Any

import numpy as np

from serve.bets import ABOVE, BELOW, MORE, MORE_OR_LESS, difference_bets, rate_bets, share_bets
from serve.guardrails import GuardrailConfig, Step
from serve.hypotheses import EVENTS, allowed, alpha_of, rows
from serve.latencies import Latencies
from serve.observations import Observation, Opinion, Pair, Pairs, Requests
from serve.patients import NOBODY, Patients, key_of
from serve.spells import Spells
from serve.step_counts import FAULTS, StepCounts
from serve.wealth import Wealth
from serve.window import BOUNDS, CANARY, CHAMPION, Window

FREEZE_AT = 200
"""Champion requests whose 95th percentile becomes `slow_ms` where the configuration has none."""
FORGET = 3.0
"""How much more than they need the absolute rules remember, as a logarithm: one to two hundred requests."""
RARE = 0.001
"""The share from which on a label that never occurred counts as new."""
Mixed = Observation | Pair | Opinion
PLAIN = ("started_at", "clock", "slow_ms", "events")
ARRAYS = ("requests_AK", "fresh_AK", "mix_L")
PARTS: dict[str, Any] = {
    "wealth": Wealth,
    "step": StepCounts,
    "patients": Patients,
    "mirrored": Patients,
    "counted": Patients,
    "spells": Spells,
    "window": Window,
}
"""What is stored: attributes that are JSON, counts, and what stores itself."""


def _concurrent(requests: Requests) -> np.ndarray:
    """Where the draw could have gone either way."""
    return (requests.share_N > 0) & (requests.share_N < 1)


class Evidence:
    def __init__(self, config: GuardrailConfig, *, started_at: float) -> None:
        if not math.isfinite(started_at):
            raise ValueError(f"started_at is {started_at}, not seconds since the epoch")
        self.config = config
        self.started_at = self.clock = started_at
        self.wealth = Wealth(rows(config))
        self.step = StepCounts(number=0, share=0.0, entered_at=started_at)
        self.patients, self.mirrored, self.counted = Patients(), Patients(), Patients()
        self.window, self.spells = Window(config.window_minutes), Spells()
        self.champion = Latencies()
        self.slow_ms = config.slow_ms
        self.events = {name: [0, 0] for name in EVENTS}
        """What was bet on, of canary and champion."""
        self._open_minute()

    # ---- what the controller calls

    def enter(self, step: Step, *, number: int, at: float) -> None:
        """A step of the ramp begins: what a promotion needs is counted anew, what was won or lost stays."""
        if number <= self.step.number:
            raise ValueError(f"step {number} does not come after step {self.step.number}")
        self._pass_time(np.array([at], float))
        self.wealth.begin(step=number)
        self.step = StepCounts(number=number, share=step.share, entered_at=self.clock)

    def observe(self, *observations: Mixed) -> None:
        """Take observations of any kind, in order."""
        for kind, run in groupby(observations, type):
            some = list(run)
            if kind is Observation:
                self.take_requests(Requests.of(some, self.config.labels))  # type: ignore[arg-type]
            elif kind is Pair:
                self.take_pairs(Pairs.of(some))  # type: ignore[arg-type]
            elif kind is Opinion:
                self._take_opinions(some)  # type: ignore[arg-type]
            else:
                raise ValueError(f"{kind.__name__} is no observation")

    def take_requests(self, requests: Requests) -> None:
        """The same for first attempts that are columns already."""
        for rows_N, clock_N in self._minutes(requests.at_N):
            some = requests[rows_N]
            self._deaths(some)
            judged_N = some.incident_N == 0
            self._judge(some if judged_N.all() else some[judged_N], clock_N[judged_N])

    def take_pairs(self, pairs: Pairs) -> None:
        """The same for mirrored pairs."""
        for rows_N, _ in self._minutes(pairs.at_N):
            self._mirror(pairs[rows_N])

    @property
    def _step_mark(self) -> int:
        """How `Patients` remember the step: negative where there was nothing concurrent, so no draw to learn from."""
        return (self.step.number + 1) * (1 if 0 < self.step.share < 1 else -1)

    # ---- time

    def _minutes(self, at_N: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
        """Cut a batch where minutes begin; what comes late belongs to the minute in which it comes."""
        clock_N = np.maximum.accumulate(np.maximum(at_N, self.clock))
        minute_N = np.floor((clock_N - self.started_at) / 60).astype(int)
        starts = np.flatnonzero(np.diff(minute_N, prepend=-1))
        for start, end in pairwise([*starts, len(at_N)]):
            self._enter_minute(int(minute_N[start]) + 1)
            self.clock = float(clock_N[end - 1])
            yield slice(start, end), clock_N[start:end]

    def _pass_time(self, at_N: np.ndarray) -> None:
        for _ in self._minutes(at_N):
            pass

    def _enter_minute(self, minute: int) -> None:
        if (passed := minute - self.wealth.minute) > 0:
            self._close_minute(skipped=passed - 1)
            self.wealth.begin(minute=minute)

    def _open_minute(self) -> None:
        self.requests_AK = np.zeros((2, 1 + len(BOUNDS)), int)
        """Requests of the open minute, and how many were over each bound."""
        self.fresh_AK = np.zeros_like(self.requests_AK)
        """The same of patients that were never met before."""
        self.mix_L = np.zeros(len(self.config.labels), int)
        """Labels that the champion gave to those."""

    def _close_minute(self, *, skipped: int) -> None:
        self._bet_on_spells(self.spells.close())
        self._bet_on_bounds()
        self._bet_on_mix()
        self.window.close(self.requests_AK, skipped)
        for patients in (self.patients, self.mirrored, self.counted):
            patients.age()
        if self.slow_ms is None and self.champion.total >= FREEZE_AT:
            self.slow_ms = self.champion.quantile(0.95)
        self._open_minute()

    # ---- requests

    def _deaths(self, requests: Requests) -> None:
        """An incident counts once. Every process is as likely to die, so the canary's share is half at least."""
        incident_N = np.flatnonzero(requests.incident_N)
        keys_N = requests.incident_N[incident_N]
        some = requests[incident_N]
        self._bet_on_events("deaths", some.canary_N, np.maximum(some.share_N, 0.5), keys_N, _concurrent(some))

    def _judge(self, requests: Requests, clock_N: np.ndarray) -> None:
        """One minute, or a part of it, without infrastructure's failures."""
        config, canary_N = self.config, requests.canary_N
        concurrent_N = _concurrent(requests)
        slow_N = requests.late_N | (requests.latency_N > (math.inf if self.slow_ms is None else self.slow_ms))
        faults_NF = np.column_stack([requests.error_N, requests.invalid_N, requests.abstained_N, slow_N])
        failed_N = requests.error_N | requests.invalid_N
        over_NK = np.column_stack(
            [
                failed_N,
                requests.late_N | (requests.latency_N > config.roll_back_p99_ms),
                requests.late_N | (requests.latency_N > config.promote_p99_ms),
            ]
        )
        before_N = self.patients.meet(requests.patient_N, self._step_mark)
        first_N, fresh_N = before_N == 0, before_N != self._step_mark
        for nth, name in enumerate(FAULTS[:3]):
            bad = np.flatnonzero(faults_NF[:, nth])
            self._bet_on_events(
                name, canary_N[bad], requests.share_N[bad], requests.patient_N[bad], concurrent_N[bad]
            )
        self._bet_on_all_of_it(requests, failed_N)
        self._bet_on_labels(requests, (before_N <= 0) & concurrent_N)
        if self.slow_ms is not None:
            spell_N = np.floor((clock_N - self.started_at) / config.spell_s).astype(int)
            self._bet_on_spells(
                self.spells.add(spell_N[concurrent_N], canary_N[concurrent_N], slow_N[concurrent_N])
            )
        self._count_minute(requests, over_NK, first_N)
        self._count_step(requests, faults_NF, over_NK, fresh_N)

    def _count_minute(self, requests: Requests, over_NK: np.ndarray, first_N: np.ndarray) -> None:
        for arm, mine_N in ((CANARY, requests.canary_N), (CHAMPION, ~requests.canary_N)):
            for counts_AK, counted_N in ((self.requests_AK, mine_N), (self.fresh_AK, mine_N & first_N)):
                counts_AK[arm, 0] += int(counted_N.sum())
                counts_AK[arm, 1:] += over_NK[counted_N].sum(axis=0)
        labelled_N = ~requests.canary_N & first_N & (requests.label_N >= 0)
        self.mix_L += np.bincount(requests.label_N[labelled_N], minlength=len(self.mix_L))
        if self.slow_ms is None:
            self.champion.add(requests.latency_N[~requests.canary_N])

    def _count_step(
        self, requests: Requests, faults_NF: np.ndarray, over_NK: np.ndarray, fresh_N: np.ndarray
    ) -> None:
        step, counts_N = self.step, fresh_N & (np.abs(requests.share_N - self.step.share) < 1e-9)
        for arm, mine_N in ((CANARY, requests.canary_N), (CHAMPION, ~requests.canary_N)):
            step.requests_A[arm] += int(mine_N.sum())
            step.latencies_A[arm].add(requests.latency_N[mine_N])
            step.patients_A[arm] += int((mine_N & counts_N).sum())
            step.bad_AF[arm] += faults_NF[mine_N & counts_N].sum(axis=0)
        step.over_promote += int(over_NK[requests.canary_N, BOUNDS.index("over_promote")].sum())

    # ---- mirrored pairs and opinions

    def _mirror(self, pairs: Pairs) -> None:
        """Images of both versions; each patient's first. Of those that one version failed, half are the canary's."""
        before_N = self.mirrored.meet(pairs.patient_N, self._step_mark)
        first_N, fresh_N = before_N == 0, before_N != self._step_mark
        one_failed_N = pairs.canary_failed_N ^ pairs.champion_failed_N
        failed = np.flatnonzero(one_failed_N)
        half_N = np.full(len(failed), 0.5)
        self._bet_on_events(
            "mirrored_errors", pairs.canary_failed_N[failed], half_N, pairs.patient_N[failed], half_N > 0
        )
        answered_N = ~(pairs.canary_failed_N | pairs.champion_failed_N)
        disagree_N = pairs.disagree_N[first_N & answered_N]
        bound = self.config.disagreement_bound
        self.wealth.bet("disagreement", rate_bets(disagree_N, ~disagree_N, np.array([bound]), ABOVE))
        step = self.step
        step.pairs += len(pairs)
        step.mirrored += int(fresh_N.sum())
        step.answered += int((fresh_N & answered_N).sum())
        step.disagreements += int((fresh_N & pairs.disagree_N).sum())
        step.canary_only += int((fresh_N & one_failed_N & pairs.canary_failed_N).sum())
        step.champion_only += int((fresh_N & one_failed_N & pairs.champion_failed_N).sum())

    def _take_opinions(self, opinions: list[Opinion]) -> None:
        columns = [(one.arm == "canary", one.share, key_of(one.patient)) for one in opinions]
        canary_N, share_N, patient_N = (np.array(one) for one in zip(*columns, strict=True))
        corrected_N = np.array([not one.agrees for one in opinions])
        for rows_N, _ in self._minutes(np.array([one.at for one in opinions], float)):
            bad = np.arange(rows_N.start, rows_N.stop)[corrected_N[rows_N]]
            concurrent_N = (share_N[bad] > 0) & (share_N[bad] < 1)
            self._bet_on_events("feedback", canary_N[bad], share_N[bad], patient_N[bad], concurrent_N)

    # ---- bets

    def _bet_on_events(
        self,
        name: str,
        canary_N: np.ndarray,
        share_N: np.ndarray,
        keys_N: np.ndarray,
        concurrent_N: np.ndarray,
    ) -> None:
        """Events of one kind that befell these patients: the first of each counts, where both arms had traffic."""
        if not len(keys_N):
            return
        salted_N = np.where(keys_N == NOBODY, NOBODY, keys_N ^ key_of(name))
        kept = np.flatnonzero(concurrent_N)
        kept = kept[self.counted.meet(salted_N[kept]) == 0]
        self.wealth.bet(name, share_bets(canary_N[kept], share_N[kept], MORE))
        canary = int(canary_N[kept].sum())
        self.events[name][CANARY] += canary
        self.events[name][CHAMPION] += len(kept) - canary

    def _bet_on_all_of_it(self, requests: Requests, failed_N: np.ndarray) -> None:
        """Where the canary has all of the traffic: does it fail more than the bound allows? Patients fail once."""
        whole = np.flatnonzero(requests.canary_N & (requests.share_N == 1))
        failed = whole[failed_N[whole]]
        keys_N = requests.patient_N[failed]
        again_N = self.counted.meet(np.where(keys_N == NOBODY, NOBODY, keys_N ^ key_of("frozen_errors"))) > 0
        bad_N = failed_N[np.setdiff1d(whole, failed[again_N])]
        for name, bound in (
            ("frozen_errors", self.config.error_bound),
            ("gross_errors", self.config.gross_bound),
        ):
            self.wealth.bet(name, rate_bets(bad_N, ~bad_N, np.array([bound]), ABOVE))

    def _bet_on_labels(self, requests: Requests, counted_N: np.ndarray) -> None:
        counted = np.flatnonzero(counted_N & (requests.label_N >= 0))
        label_N = requests.label_N[counted]
        won_NB = share_bets(requests.canary_N[counted], requests.share_N[counted], MORE_OR_LESS)
        for nth in np.unique(label_N):
            self.wealth.bet(f"drift:{self.config.labels[nth]}", won_NB[label_N == nth])

    def _bet_on_spells(self, difference_N: np.ndarray) -> None:
        self.wealth.bet("latency", difference_bets(difference_N, self.config.latency_tolerance))

    def _bet_on_bounds(self) -> None:
        """Once a minute, from patients never met before: is the canary over a bound, is the champion under it?"""
        total_A1, over_AK = self.fresh_AK[:, :1], self.fresh_AK[:, 1:]
        bound_K = np.array([allowed(self.config, bound) for bound in BOUNDS])
        alpha_K = np.array([alpha_of(self.config, bound) for bound in BOUNDS])
        for arm, side, multiples_B in ((CANARY, "canary_over", ABOVE), (CHAMPION, "champion_under", BELOW)):
            won_KB = rate_bets(over_AK[arm], total_A1[arm] - over_AK[arm], bound_K, multiples_B)
            self.wealth.bet_at_once([f"{side}:{one}" for one in BOUNDS], won_KB, FORGET - np.log(alpha_K))
        failed_1 = over_AK[CHAMPION, [BOUNDS.index("errors")]]
        gross_1 = np.array([self.config.gross_bound])
        won_1B = rate_bets(failed_1, total_A1[CHAMPION] - failed_1, gross_1, BELOW)
        self.wealth.bet_at_once(["champion_under_gross"], won_1B, np.array([np.inf]))

    def _bet_on_mix(self) -> None:
        """Does the champion give a label more, or less, often than it used to, beyond the tolerance?"""
        if self.config.label_shares is None:
            return
        usual_L = np.array([self.config.label_shares.get(label, 0.0) for label in self.config.labels])
        tolerance, others_L = self.config.drift_tolerance, self.mix_L.sum() - self.mix_L
        bound_L = np.clip(usual_L * tolerance, RARE, 1 - RARE)
        self._bet_on_way("more", rate_bets(self.mix_L, others_L, bound_L, ABOVE))
        bound_L = np.maximum(usual_L / tolerance, RARE)
        won_LB = rate_bets(self.mix_L, others_L, bound_L, BELOW)
        self._bet_on_way("less", np.where((usual_L / tolerance >= RARE)[:, None], won_LB, 0.0))

    def _bet_on_way(self, way: str, won_LB: np.ndarray) -> None:
        names = [f"{way}:{label}" for label in self.config.labels]
        self.wealth.bet_at_once(names, won_LB, np.full(len(names), np.inf))

    # ---- storage

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON; the configuration is stored by whoever stores the rollout."""
        plain = {name: getattr(self, name) for name in PLAIN}
        arrays = {name: getattr(self, name).tolist() for name in ARRAYS}
        parts = {name: getattr(self, name).as_dict() for name in PARTS}
        return {**plain, **arrays, **parts, "champion": self.champion.as_list()}

    @classmethod
    def from_dict(cls, stored: dict[str, Any], config: GuardrailConfig) -> "Evidence":
        if list(stored["wealth"]["rows"]) != rows(config):
            raise ValueError(
                "this evidence was gathered with other guardrails or labels: begin the rollout anew"
            )
        evidence = cls(config, started_at=stored["started_at"])
        for name in PLAIN:
            setattr(evidence, name, stored[name])
        for name in ARRAYS:
            setattr(evidence, name, np.array(stored[name], int))
        for name, kind in PARTS.items():
            setattr(evidence, name, kind.from_dict(stored[name]))
        evidence.champion = Latencies.from_list(stored["champion"])
        return evidence
