"""The model card for people, `card.md`: what a version is for, what it was trained on, how good it is, and its limits.

It lies with the other files of the evaluation in MLflow; programs read `data.model_card`.
After Mitchell et al. 2019, Model Cards for Model Reporting.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from data.model_card import ModelCard
from train.evaluation.gates import GateResult
from train.metrics.bootstrap import Estimate
from train.metrics.classification import CLASS_FIGURES
from train.metrics.report import Report
from train.vit.families import family_of

INTENDED = """Research and engineering on the classification of X-rays into the classes below, behind the checks of this
service and with a physician who confirms each result. It is no medical device; a result is never a diagnosis.

Not for: lateral films, other modalities, images of other body parts, patients unlike those of the training data,
triage without a physician, or any decision about a person that nobody checks."""

DRAWN = """**The training images are drawings made by a program.** The model knows nothing about people, and its figures
say nothing about real X-rays."""


def card(
    *,
    model_version: str,
    bundle_card: ModelCard,
    dataset: Mapping[str, Any],
    report: Report,
    gates: Sequence[GateResult],
    verdict: str,
    environment: str,
) -> str:
    """Write the card as Markdown.

    Args:
        bundle_card: the release bundle's card.
        dataset: the manifest of the dataset version.
    """
    parts = [
        f"# {bundle_card.model} {model_version}",
        f"Verdict of the gates of `{environment}`: **{verdict}**.",
        *([DRAWN] if bundle_card.synthetic else []),
        f"## Intended use\n\n{INTENDED}",
        f"## Model\n\n{_model(bundle_card)}",
        f"## Data\n\n{_data(bundle_card, dataset)}",
        f"## Figures\n\n{_figures(report)}",
        f"## By class\n\n{_classes(report)}",
        f"## By subgroup\n\n{_subgroups(report)}",
        f"## Gates\n\n{_gates(gates)}",
        f"## Limits\n\n{_limits(gates)}",
    ]
    return "\n\n".join(parts) + "\n"


def _model(bundle_card: ModelCard) -> str:
    side, calibration = bundle_card.pixels.side, bundle_card.calibration
    rows = [
        (
            "architecture",
            f"`{bundle_card.architecture.timm}`, {family_of(bundle_card.architecture.timm).title} of timm",
        ),
        ("parameters", f"{bundle_card.parameters:,}"),
        ("input", f"{side} x {side} pixels, one channel"),
        ("code", f"commit `{bundle_card.git_commit}`"),
        ("temperature", f"{calibration.temperature:.3f}"),
        ("unsure below", f"{calibration.abstain_below:.3f}"),
    ]
    return table(("", ""), rows)


def _data(bundle_card: ModelCard, dataset: Mapping[str, Any]) -> str:
    parts = [f"Dataset version `{bundle_card.dataset_version}`, split by patient and near-duplicate group."]
    for name in ("sources", "licenses"):
        if dataset.get(name):
            parts.append(table((name, "images"), list(dataset[name].items())))
    return "\n\n".join(parts)


def _figures(report: Report) -> str:
    rows = [
        ("accuracy", report.overall.accuracy),
        ("balanced accuracy", report.overall.balanced_accuracy),
        ("macro F1", report.overall.macro_f1),
        ("false-normal rate", report.false_normal_rate),
        ("calibration error, before scaling", report.ece_before),
        ("calibration error", report.ece),
        (f"coverage of conformal sets (promised {report.promised_coverage:.2f})", report.coverage),
    ]
    images = (
        f"On {report.accuracy.images} test images of {report.accuracy.groups} patients or groups that training has not "
        "seen, with 95 % bootstrap intervals over them."
    )
    return f"{images}\n\n" + table(
        ("figure", "value", "95 % interval"), [(name, *_cells(estimate)) for name, estimate in rows]
    )


def _classes(report: Report) -> str:
    header = ("class", "images", "patients", *CLASS_FIGURES)
    rows = [
        (row.label, row.images, row.groups, *(_short(getattr(row, name)) for name in CLASS_FIGURES))
        for row in report.classes
    ]
    return table(header, rows)


def _subgroups(report: Report) -> str:
    header = ("attribute", "subgroup", "images", "with a finding", "accuracy", "false-normal rate")
    rows = [
        (
            row.attribute,
            row.subgroup,
            row.images,
            row.findings,
            _short(row.accuracy),
            _short(row.false_normal_rate),
        )
        for row in report.subgroups
    ]
    return table(header, rows)


def _gates(gates: Sequence[GateResult]) -> str:
    rows = [(gate.name, gate.verdict + (", halts" if gate.halts else ""), gate.why) for gate in gates]
    return table(("gate", "verdict", "why"), rows)


def _limits(gates: Sequence[GateResult]) -> str:
    unknown = [f"`{gate.name}`: {gate.why}" for gate in gates if gate.verdict == "not evaluable"]
    failed = [f"`{gate.name}`: {gate.why}" for gate in gates if gate.verdict == "fail"]
    limits = [
        "The lungs of the shortcut audit are a fixed box, not a segmentation.",
        "A grey photograph, or a lateral film that nobody calls lateral, may pass the checks before the model.",
        *(f"Failed: {gate}." for gate in failed),
        *(f"Not known: {gate}." for gate in unknown),
    ]
    return "\n".join(f"- {limit}" for limit in limits)


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Format a table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in row) + " |" for row in lines)


def _cells(estimate: Estimate | None) -> tuple[str, str]:
    return (
        ("–", "–")
        if estimate is None
        else (f"{estimate.value:.3f}", f"{estimate.low:.3f} to {estimate.high:.3f}")
    )


def _short(estimate: Estimate | None) -> str:
    return "–" if estimate is None else f"{estimate.value:.2f} ({estimate.low:.2f} to {estimate.high:.2f})"
