"""Everything a rollout has shown so far: observations in, e-values of every guardrail out. Constant memory.

The controller gives it each observation once, in the order of the ledger, tells it when a step begins, and stores
it as plain JSON; what is read back goes on with the same bits, and so does what is rebuilt from the ledger,
however the stream is cut into batches. It decides nothing: `serve.canary.verdict` does. Knows neither Ray, nor
torch, nor a database.
"""

import math
from collections.abc import Iterator
from itertools import groupby, pairwise
from typing import Any

import numpy as np

from serve.canary.e_process import EProcesses
from serve.canary.evidence_formats import FORMAT, read_evidence
from serve.canary.guardrails import (
    BOUNDS,
    BY_NAME,
    FAILURES,
    FAULTS,
    Guardrail,
    GuardrailConfig,
    Step,
    with_test,
)
from serve.canary.hypotheses import hypothesis_names
from serve.canary.hypothesis_tests import HypothesisTests
from serve.canary.latency import LatencyBlocks, LatencyHistogram
from serve.canary.observations import Feedback, MirroredPair, Observation, Pairs, PhysicianFeedback, Requests
from serve.canary.seen_patients import SeenPatients
from serve.canary.sliding_window import CANARY, CHAMPION, SlidingWindow
from serve.canary.step_counts import StepCounts

FREEZE_AT = 200
"""Champion requests whose 95th percentile becomes `slow_ms` where the configuration has none."""
AnyObservation = Observation | MirroredPair | PhysicianFeedback


class Evidence:
    def __init__(self, config: GuardrailConfig, *, started_at: float) -> None:
        if not math.isfinite(started_at):
            raise ValueError(f"started_at is {started_at}, not seconds since the epoch")
        self.config = config
        self.started_at = self.clock = started_at
        self.tests = HypothesisTests(config)
        self.step = StepCounts(number=0, share=0.0, entered_at=started_at)
        self.patients, self.mirrored = SeenPatients(), SeenPatients()
        self.window, self.blocks = SlidingWindow(config.window_minutes), LatencyBlocks()
        self.champion = LatencyHistogram()
        self.slow_ms = config.slow_ms
        self._open_minute()

    @property
    def e_processes(self) -> EProcesses:
        return self.tests.e_processes

    @property
    def events(self) -> dict[str, list[int]]:
        """Events of each `share` guardrail, each patient once, of canary and champion."""
        return self.tests.events

    # ---- what the controller calls

    def enter(self, step: Step, *, number: int, at: float) -> None:
        """Begin a step of the ramp: what a promotion needs is counted anew, e-values stay."""
        if number <= self.step.number:
            raise ValueError(f"step {number} does not come after step {self.step.number}")
        self._pass_time(np.array([at], float))
        self.e_processes.begin(step=number)
        self.step = StepCounts(number=number, share=step.share, entered_at=self.clock)

    def observe(self, *observations: AnyObservation) -> None:
        """Take observations of any kind, in order."""
        for kind, run in groupby(observations, type):
            batch: list[Any] = list(run)
            if kind is Observation:
                self.take_requests(Requests.of(batch, self.config.labels))
            elif kind is MirroredPair:
                self.take_pairs(Pairs.of(batch))
            elif kind is PhysicianFeedback:
                self.take_feedback(Feedback.of(batch))
            else:
                raise ValueError(f"{kind.__name__} is no observation")

    def take_requests(self, requests: Requests) -> None:
        """Take first attempts as columns."""
        for rows_N, clock_N in self._minutes(requests.at_N):
            minute = requests[rows_N]
            self._count_incidents(minute)
            judged_N = minute.incident_N == 0
            self._judge(minute if judged_N.all() else minute[judged_N], clock_N[judged_N])

    def take_pairs(self, pairs: Pairs) -> None:
        """Take mirrored pairs as columns."""
        for rows_N, _ in self._minutes(pairs.at_N):
            self._judge_pairs(pairs[rows_N])

    def take_feedback(self, feedback: Feedback) -> None:
        """Take physicians' feedback as columns."""
        for rows_N, _ in self._minutes(feedback.at_N):
            minute = feedback[rows_N]
            for guardrail in with_test("share", "feedback"):
                bad = minute[np.flatnonzero(getattr(minute, guardrail.column))]
                self.tests.update_share(guardrail, bad.canary_N, bad.share_N, bad.patient_N)

    @property
    def _step_mark(self) -> int:
        """How `SeenPatients` mark the step: negative where nothing was concurrent, so no draw to learn from."""
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
        if (passed := minute - self.e_processes.minute) > 0:
            self._close_minute(skipped=passed - 1)
            self.e_processes.begin(minute=minute)

    def _open_minute(self) -> None:
        self.requests_AK = np.zeros((2, 1 + len(BOUNDS)), int)
        """Requests of the open minute, and how many were over each bound."""
        self.fresh_AK = np.zeros_like(self.requests_AK)
        """The same of patients that were never seen before."""
        self.mix_L = np.zeros(len(self.config.labels), int)
        """Labels that the champion gave to those."""

    def _close_minute(self, *, skipped: int) -> None:
        self.tests.update_blocks(self.blocks.close())
        self.tests.update_bounds(self.fresh_AK)
        if self.config.label_shares is not None:
            self.tests.update_label_mix(self.mix_L, self.config.label_shares)
        self.window.close(self.requests_AK, skipped)
        for patients in (self.patients, self.mirrored, self.tests.counted):
            patients.age()
        if self.slow_ms is None and self.champion.total >= FREEZE_AT:
            self.slow_ms = self.champion.quantile(0.95)
        self._open_minute()

    # ---- requests

    def _count_incidents(self, requests: Requests) -> None:
        """Count incidents once each. Every process is as likely to die, so the canary's share is half at least."""
        for guardrail in with_test("share", "incidents"):
            keys_N = getattr(requests, guardrail.column)
            hit = np.flatnonzero(keys_N)
            self.tests.update_share(
                guardrail, requests.canary_N[hit], requests.share_N[hit], keys_N[hit], least_share=0.5
            )

    def _judge(self, requests: Requests, clock_N: np.ndarray) -> None:
        """Take one minute, or a part of it, without failures of infrastructure."""
        slow_N = requests.late_N | (requests.latency_N > (math.inf if self.slow_ms is None else self.slow_ms))
        columns = {**vars(requests), "slow_N": slow_N}
        faults_NF = np.column_stack([columns[BY_NAME[name].column] for name in FAULTS])
        failed_N = np.logical_or.reduce([columns[BY_NAME[name].column] for name in FAILURES])
        over_NK = np.column_stack([self._over(row, requests, failed_N) for row in with_test("window")])
        before_N = self.patients.mark(requests.patient_N, self._step_mark)
        first_N, fresh_N = before_N == 0, before_N != self._step_mark
        for guardrail in with_test("share", "requests"):
            bad = np.flatnonzero(columns[guardrail.column])
            self.tests.update_share(
                guardrail, requests.canary_N[bad], requests.share_N[bad], requests.patient_N[bad]
            )
        self.tests.update_full_traffic(requests, failed_N)
        concurrent_N = (requests.share_N > 0) & (requests.share_N < 1)
        self.tests.update_labels(requests, (before_N <= 0) & concurrent_N)
        if self.slow_ms is not None:
            block_N = np.floor((clock_N - self.started_at) / self.config.block_s).astype(int)
            of_blocks = (block_N[concurrent_N], requests.canary_N[concurrent_N], slow_N[concurrent_N])
            self.tests.update_blocks(self.blocks.add(*of_blocks))
        self._count_minute(requests, over_NK, first_N)
        self._count_step(requests, faults_NF, over_NK, fresh_N)

    def _over(self, guardrail: Guardrail, requests: Requests, failed_N: np.ndarray) -> np.ndarray:
        """Return which requests were over the bound of a `window` guardrail."""
        if guardrail.column == "failed_N":
            return failed_N
        return requests.late_N | (
            getattr(requests, guardrail.column) > getattr(self.config, str(guardrail.bound))
        )

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

    # ---- mirrored pairs

    def _judge_pairs(self, pairs: Pairs) -> None:
        """Take images of both versions; each patient's first counts. Of those that one version failed, half are the
        canary's if both are alike.
        """
        before_N = self.mirrored.mark(pairs.patient_N, self._step_mark)
        first_N, fresh_N = before_N == 0, before_N != self._step_mark
        answered_N = ~(pairs.canary_failed_N | pairs.champion_failed_N)
        for guardrail in with_test("share", "pairs"):
            canary_N = getattr(pairs, f"canary_{guardrail.column}")
            bad = np.flatnonzero(canary_N ^ getattr(pairs, f"champion_{guardrail.column}"))
            self.tests.update_share(guardrail, canary_N[bad], np.full(len(bad), 0.5), pairs.patient_N[bad])
        for guardrail in with_test("rate", "pairs"):
            bad_N = getattr(pairs, guardrail.column)[first_N & answered_N]
            self.tests.update_rate(guardrail, bad_N)
        alone_N = pairs.canary_failed_N ^ pairs.champion_failed_N
        step = self.step
        step.pairs += len(pairs)
        step.mirrored += int(fresh_N.sum())
        step.answered += int((fresh_N & answered_N).sum())
        step.disagreements += int((fresh_N & pairs.disagree_N).sum())
        step.canary_only += int((fresh_N & alone_N & pairs.canary_failed_N).sum())
        step.champion_only += int((fresh_N & alone_N & pairs.champion_failed_N).sum())

    # ---- storage

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON without the configuration, which is stored with the plan."""
        return {
            "format": FORMAT,
            "started_at": self.started_at,
            "clock": self.clock,
            "slow_ms": self.slow_ms,
            "events": self.events,
            "requests_AK": self.requests_AK.tolist(),
            "fresh_AK": self.fresh_AK.tolist(),
            "mix_L": self.mix_L.tolist(),
            "wealth": self.e_processes.as_dict(),
            "step": self.step.as_dict(),
            "patients": self.patients.as_dict(),
            "mirrored": self.mirrored.as_dict(),
            "counted": self.tests.counted.as_dict(),
            "spells": self.blocks.as_dict(),
            "window": self.window.as_dict(),
            "champion": self.champion.as_list(),
        }

    @classmethod
    def from_dict(cls, stored: dict[str, Any], config: GuardrailConfig) -> "Evidence":
        """Read stored evidence; raises FormatError if a later version, or other guardrails or labels, made it."""
        values = read_evidence(stored, hypothesis_names(config))
        evidence = cls(config, started_at=values["started_at"])
        evidence.clock, evidence.slow_ms = values["clock"], values["slow_ms"]
        evidence.requests_AK = np.array(values["requests_AK"], int)
        evidence.fresh_AK = np.array(values["fresh_AK"], int)
        evidence.mix_L = np.array(values["mix_L"], int)
        evidence.tests.events |= values["events"]
        evidence.tests.e_processes = EProcesses.from_dict(values["wealth"])
        evidence.tests.counted = SeenPatients.from_dict(values["counted"])
        evidence.step = StepCounts.from_dict(values["step"])
        evidence.patients = SeenPatients.from_dict(values["patients"])
        evidence.mirrored = SeenPatients.from_dict(values["mirrored"])
        evidence.blocks = LatencyBlocks.from_dict(values["spells"])
        evidence.window = SlidingWindow.from_dict(values["window"])
        evidence.champion = LatencyHistogram.from_list(values["champion"])
        return evidence
