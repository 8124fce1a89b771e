"""Measures a model version before the gates judge it: on the test split, beside the champion, on changed images, and on
images that must be refused.

`train.evaluation.evaluate` calls `run_suite` and records the results.
"""

from dataclasses import dataclass

import numpy as np
import torch

from cluster.objects import ObjectStore
from cluster.progress import OnProgress, silent
from cluster.settings import Settings
from data.dataset.split import Split
from data.dataset.versions import SplitTable, load_split
from data.imaging.preprocess import PREPROCESS_VERSION
from data.model_card import ModelCard
from data.sandbox.decoder import Decoder
from data.taxonomy import taxonomy
from data.validation.shortcut_probes import Shortcuts
from train.evaluation import behavioural_tests, originals, rejection_tests, shortcut_audit
from train.evaluation.behavioural_tests import Predictions
from train.evaluation.gates import Gates
from train.metrics import report, subgroups
from train.metrics.calibration import probabilities
from train.metrics.champion_comparison import compare
from train.metrics.gate_inputs import Behaviour, Comparison, GateInputs
from train.metrics.report import Answered, HeldOut, Report
from train.release import publish
from train.vit.inference import logits, rebuild

REMADE = 3000
"""Largest number of test images whose pixels are remade for a champion with other pixels: 10 to 100 ms each."""


class EvaluateError(ValueError):
    """The model version cannot be judged; the message says why in one line."""


@dataclass(frozen=True, kw_only=True)
class Version:
    """One model version, loaded."""

    number: str
    card: ModelCard
    model: torch.nn.Module

    def logits(self, pixels_NHW: np.ndarray, progress: OnProgress = silent) -> np.ndarray:
        return logits(self.model, pixels_NHW, self.card.pixels, progress)

    def ask(self, pixels_NHW: np.ndarray) -> np.ndarray:
        """Compute calibrated probabilities, float64 (N, classes)."""
        return probabilities(self.logits(pixels_NHW), self.card.calibration.temperature)

    def answers(self, pixels_NHW: np.ndarray) -> np.ndarray:
        """Return the name of the most probable class of each image."""
        return np.asarray(self.card.classes)[self.logits(pixels_NHW).argmax(axis=1)]


@dataclass(frozen=True, kw_only=True)
class EvaluationResults:
    report: Report
    measured: GateInputs
    probes: Shortcuts
    """What the images themselves give away; no gate looks at it."""


def load(store: ObjectStore, number: str, bundle_key: str) -> Version:
    """Load a model version from its release bundle, verified.

    Raises:
        EvaluateError: this code cannot read its card, or it was trained on other pixels or for other classes.
        BundleError: it is absent, unsigned or was changed.
    """
    try:
        card, weights = publish.fetch(store, bundle_key)
    except publish.ReleaseError as error:
        raise EvaluateError(f"version {number}: {error}") from error
    return version_of(number, card, weights)


def version_of(number: str, card: ModelCard, weights: bytes) -> Version:
    """Rebuild a model version from card and weights; raises EvaluateError as `load` does."""
    if card.preprocess_version != PREPROCESS_VERSION:
        raise EvaluateError(
            f"version {number} was trained on preprocessing {card.preprocess_version}, this code has "
            f"{PREPROCESS_VERSION}: evaluate it with the code of commit {card.git_commit}"
        )
    if strange := sorted(set(card.classes) - set(taxonomy().names)):
        raise EvaluateError(
            f"version {number} knows classes that this site's taxonomy lacks: {', '.join(strange)}"
        )
    return Version(number=number, card=card, model=rebuild(card.architecture, weights))


def run_suite(
    settings: Settings,
    version: Version,
    champion: Version | Comparison,
    gates: Gates,
    progress: OnProgress,
) -> EvaluationResults:
    """Measure everything.

    Args:
        champion: the version to compare with, or why there is no comparison.
    Raises:
        EvaluateError, VersionError, ObjectStoreError, SecretError, SandboxError: one line each.
    """
    table, held_out = _split(settings, version, "test"), _split(settings, version, "validation")
    answered = _answered(table, version.logits(table.pixels_NHW, progress))
    validated = HeldOut(
        logits_NK=version.logits(held_out.pixels_NHW), labels_N=held_out.labels_N, groups=held_out.groups
    )
    figures = report.build(answered, validated, version.card.classes, version.card.calibration)
    answers_N = figures.probabilities_NK.argmax(axis=1)
    predictions = Predictions(
        pixels_NHW=table.pixels_NHW,
        labels_N=table.labels_N,
        groups=table.groups,
        names=version.card.classes,
        probabilities_NK=figures.probabilities_NK,
    )
    with Decoder(children=1) as decoder:
        progress(0, 4, "beside the champion")
        if isinstance(champion, Version):
            champion = _compare(settings, decoder, table, version, answers_N == table.labels_N, champion)
        progress(1, 4, "what must be refused")
        refused = _refusals(settings, decoder, table, version.card.classes)
    progress(2, 4, "changed images")
    behaved = behavioural_tests.behaviours(
        version.ask, predictions, version.card.pixels, synthetic=version.card.synthetic
    )
    progress(3, 4, "without the lungs")
    measured = GateInputs(
        accuracy=figures.accuracy,
        classes=figures.class_counts(),
        calibration_error=figures.ece,
        coverage=figures.coverage,
        promised_coverage=figures.promised_coverage,
        champion=champion,
        subgroups=subgroups.gaps(
            table.labels_N,
            answers_N,
            version.card.classes,
            answered.known(),
            table.groups,
            least_images=gates.subgroup_images,
        ),
        shortcuts=shortcut_audit.audit(version.ask, predictions),
        behaviour=[*behaved, *refused],
    )
    probes = shortcut_audit.probes(predictions, table.sources)
    progress(4, 4, "measured")
    return EvaluationResults(report=figures, measured=measured, probes=probes)


def _split(settings: Settings, version: Version, split: Split) -> SplitTable:
    table = load_split(ObjectStore(settings), version.card.dataset_version, split)
    if not len(table):
        raise EvaluateError(
            f"dataset version {version.card.dataset_version} has no {split} image: add patients"
        )
    return table


def _answered(table: SplitTable, logits_NK: np.ndarray) -> Answered:
    return Answered(
        logits_NK=logits_NK,
        labels_N=table.labels_N,
        groups=table.groups,
        sources=table.sources,
        sexes=table.sexes,
        ages=table.ages,
        views=table.views,
    )


def _compare(
    settings: Settings,
    decoder: Decoder,
    table: SplitTable,
    version: Version,
    right_N: np.ndarray,
    champion: Version,
) -> Comparison:
    """Compare both on the same images; a champion with other pixels gets its own, remade from the originals."""
    pixels_MHW, chosen_M = table.pixels_NHW, np.arange(len(table))
    if champion.card.pixels != version.card.pixels:
        chosen_M = np.sort(np.random.default_rng(0).permutation(len(table))[:REMADE])
        sha256s = [table.sha256s[nth] for nth in chosen_M]
        pixels_MHW, had_M = originals.pixels(settings, decoder, sha256s, champion.card.pixels)
        chosen_M = chosen_M[had_M]
    if not len(chosen_M):
        why = "the champion takes other pixels, and no original of a test image is there to make them from"
        return Comparison(champion=champion.number, why_not=why)
    truth_M = np.asarray(version.card.classes)[table.labels_N[chosen_M]]
    groups = [table.groups[nth] for nth in chosen_M]
    return compare(right_N[chosen_M], champion.answers(pixels_MHW) == truth_M, groups, champion.number)


def _refusals(
    settings: Settings, decoder: Decoder, table: SplitTable, names: tuple[str, ...]
) -> list[Behaviour]:
    chest_K = np.array([taxonomy()[name].region == "chest" for name in names])
    chests = np.flatnonzero(chest_K[table.labels_N])
    chosen = np.sort(np.random.default_rng(0).permutation(chests)[: rejection_tests.FILMS])
    shown = originals.films(settings, decoder, [table.sha256s[nth] for nth in chosen])
    had = [(film, table.groups[nth]) for film, nth in zip(shown, chosen, strict=True) if film is not None]
    return rejection_tests.refusals(
        originals.refuser(decoder), [film for film, _ in had], [group for _, group in had]
    )
