"""Updates the e-processes of all guardrails: how each test of the table turns counts into evidence.

`serve.canary.evidence` says what was observed; here is what it means for each hypothesis (`serve.canary.hypotheses`).
"""

from collections.abc import Mapping

import numpy as np

from serve.canary.e_process import (
    ABOVE,
    BELOW,
    MORE,
    MORE_OR_LESS,
    EProcesses,
    difference_bets,
    rate_bets,
    share_bets,
)
from serve.canary.guardrails import BOUNDS, Guardrail, GuardrailConfig, with_test
from serve.canary.hypotheses import allowed_share, alpha_of, canary_over, champion_under, hypothesis_names
from serve.canary.observations import Requests
from serve.canary.seen_patients import NO_PATIENT, SeenPatients, key_of
from serve.canary.sliding_window import CANARY, CHAMPION

CEILING = 3.0
"""How far above what they need the absolute guardrails remember, as a logarithm: one to two hundred requests."""
RARE = 0.001
"""The share from which on a label that never occurred counts as new."""


class HypothesisTests:
    def __init__(self, config: GuardrailConfig) -> None:
        self.config = config
        self.e_processes = EProcesses(hypothesis_names(config))
        self.counted = SeenPatients()
        """Patients whose event was counted, each guardrail apart."""
        self.events = {guardrail.name: [0, 0] for guardrail in with_test("share")}
        """Events that were counted, of canary and champion."""

    def update_share(
        self,
        guardrail: Guardrail,
        canary_N: np.ndarray,
        share_N: np.ndarray,
        keys_N: np.ndarray,
        *,
        least_share: float = 0.0,
    ) -> None:
        """Count the first event of each patient, where both arms had traffic.

        Args:
            canary_N: whether each event befell the canary.
            share_N: the canary's share of the traffic at each.
            keys_N: whose event it was (`serve.canary.seen_patients.key_of`).
            least_share: the least share of the events that is expected of the canary.
        """
        name = guardrail.name
        concurrent = np.flatnonzero((share_N > 0) & (share_N < 1))
        first = concurrent[self.counted.mark(_salted(keys_N, name)[concurrent]) == 0]
        shares_N = np.maximum(share_N[first], least_share)
        self.e_processes.update(name, share_bets(canary_N[first], shares_N, MORE))
        canary = int(canary_N[first].sum())
        self.events[name][CANARY] += canary
        self.events[name][CHAMPION] += len(first) - canary

    def update_rate(self, guardrail: Guardrail, bad_N: np.ndarray) -> None:
        """Ask whether a rate is above the guardrail's bound."""
        bound_1 = np.array([getattr(self.config, str(guardrail.bound))])
        self.e_processes.update(guardrail.name, rate_bets(bad_N, ~bad_N, bound_1, ABOVE))

    def update_full_traffic(self, requests: Requests, failed_N: np.ndarray) -> None:
        """Ask whether the canary fails more than the bounds allow where it has all traffic. Patients fail once."""
        whole = np.flatnonzero(requests.canary_N & (requests.share_N == 1))
        failed = whole[failed_N[whole]]
        again_N = self.counted.mark(_salted(requests.patient_N[failed], "frozen_errors")) > 0
        bad_N = failed_N[np.setdiff1d(whole, failed[again_N])]
        for guardrail in with_test("full_traffic"):
            self.update_rate(guardrail, bad_N)

    def update_labels(self, requests: Requests, counted_N: np.ndarray) -> None:
        """Ask whether the canary gives a label more, or less, often than the champion, of the requests that count."""
        counted = np.flatnonzero(counted_N & (requests.label_N >= 0))
        label_N = requests.label_N[counted]
        bets_NB = share_bets(requests.canary_N[counted], requests.share_N[counted], MORE_OR_LESS)
        for guardrail in with_test("labels"):
            for nth in np.unique(label_N):
                name = f"{guardrail.name}:{self.config.labels[nth]}"
                self.e_processes.update(name, bets_NB[label_N == nth])

    def update_blocks(self, difference_N: np.ndarray) -> None:
        """Ask whether the canary's share of slow requests is larger than the champion's, beyond the tolerance."""
        for guardrail in with_test("blocks"):
            tolerance = getattr(self.config, str(guardrail.bound))
            self.e_processes.update(guardrail.name, difference_bets(difference_N, tolerance))

    def update_bounds(self, counts_AK: np.ndarray) -> None:
        """Ask of one minute whether the canary is over a bound and the champion under it.

        Args:
            counts_AK: requests of patients never seen before, and how many were over each of `BOUNDS`, by arm.
        """
        guardrails, config = with_test("window"), self.config
        total_A1, over_AK = counts_AK[:, :1], counts_AK[:, 1:]
        bound_K = np.array([allowed_share(row, config) for row in guardrails])
        ceiling_K = CEILING - np.log(np.array([alpha_of(row, config) for row in guardrails]))
        for arm, name_of, multiples_B in ((CANARY, canary_over, ABOVE), (CHAMPION, champion_under, BELOW)):
            bets_KB = rate_bets(over_AK[arm], total_A1[arm] - over_AK[arm], bound_K, multiples_B)
            self.e_processes.update_rows([name_of(row) for row in guardrails], bets_KB, ceiling_K)
        failed_1 = over_AK[CHAMPION, [BOUNDS.index("errors")]]
        for guardrail in with_test("full_traffic"):
            if guardrail.champion_below is None:
                bound_1 = np.array([getattr(config, str(guardrail.bound))])
                bets_1B = rate_bets(failed_1, total_A1[CHAMPION] - failed_1, bound_1, BELOW)
                self.e_processes.update_rows([champion_under(guardrail)], bets_1B, np.array([np.inf]))

    def update_label_mix(self, mix_L: np.ndarray, usual: Mapping[str, float]) -> None:
        """Ask of one minute whether the champion gives a label more, or less, often than before, beyond the tolerance.

        Args:
            mix_L: how often it gave each label to patients never seen before.
            usual: the share of each label before the rollout.
        """
        usual_L = np.array([usual.get(label, 0.0) for label in self.config.labels])
        tolerance, others_L = self.config.drift_tolerance, mix_L.sum() - mix_L
        more_L = np.clip(usual_L * tolerance, RARE, 1 - RARE)
        self._update_way("more", rate_bets(mix_L, others_L, more_L, ABOVE))
        less_L = np.maximum(usual_L / tolerance, RARE)
        bets_LB = rate_bets(mix_L, others_L, less_L, BELOW)
        # a label so rare that less of it cannot be told from none says nothing
        self._update_way("less", np.where((usual_L / tolerance >= RARE)[:, None], bets_LB, 0.0))

    def _update_way(self, way: str, bets_LB: np.ndarray) -> None:
        names = [f"{way}:{label}" for label in self.config.labels]
        self.e_processes.update_rows(names, bets_LB, np.full(len(names), np.inf))


def _salted(keys_N: np.ndarray, name: str) -> np.ndarray:
    """Make a patient's key another one for each guardrail."""
    return np.where(keys_N == NO_PATIENT, NO_PATIENT, keys_N ^ key_of(name))
