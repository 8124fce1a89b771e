"""The card of a model version for people: what it is for, what it was trained on, how good it is, and its limits.

`card.md` lies with the other files of the evaluation in MLflow; the card that programs read is in the release bundle.
After Mitchell et al. 2019, Model Cards for Model Reporting.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from train.bootstrap import Estimate
from train.gates import GateResult
from train.metrics import CLASS_FIGURES
from train.report import Report

INTENDED = """Research and engineering on the classification of X-rays into the classes below, behind the checks of this
service and with a physician who confirms each result. It is no medical device; a result is never a diagnosis.

Not for: lateral films, other modalities, images of other body parts, patients unlike those of the training data,
triage without a physician, or any decision about a person that nobody checks."""

DRAWN = """**The training images are drawings made by a program.** The model knows nothing about people, and its figures
say nothing about real X-rays."""


def card(
    *,
    model_version: str,
    machine_card: Mapping[str, Any],
    dataset: Mapping[str, Any],
    report: Report,
    gates: Sequence[GateResult],
    verdict: str,
    environment: str,
) -> str:
    """Markdown.

    Args:
        machine_card: the release bundle's `card.json`.
        dataset: the manifest of the dataset version.
    """
    parts = [
        f"# xray-vit {model_version}",
        f"Verdict of the gates of `{environment}`: **{verdict}**.",
        *([DRAWN] if machine_card["synthetic"] else []),
        f"## Intended use\n\n{INTENDED}",
        f"## Model\n\n{_model(machine_card)}",
        f"## Data\n\n{_data(machine_card, dataset)}",
        f"## Figures\n\n{_figures(report)}",
        f"## By class\n\n{_classes(report)}",
        f"## By subgroup\n\n{_subgroups(report)}",
        f"## Gates\n\n{_gates(gates)}",
        f"## Limits\n\n{_limits(gates)}",
    ]
    return "\n\n".join(parts) + "\n"


def _model(machine_card: Mapping[str, Any]) -> str:
    calibration = machine_card["calibration"]
    rows = [
        ("architecture", f"`{machine_card['architecture']['timm']}`, a Vision Transformer of timm"),
        ("parameters", f"{machine_card.get('parameters', 0):,}"),
        ("input", f"{machine_card['pixels']['side']} x {machine_card['pixels']['side']} pixels, one channel"),
        ("code", f"commit `{machine_card['git_commit']}`"),
        ("temperature", f"{calibration['temperature']:.3f}"),
        ("unsure below", f"{calibration['abstain_below']:.3f}"),
    ]
    return table(("", ""), rows)


def _data(machine_card: Mapping[str, Any], dataset: Mapping[str, Any]) -> str:
    said = [
        f"Dataset version `{machine_card['dataset_version']}`, split by patient and near-duplicate group."
    ]
    for name in ("sources", "licenses"):
        if dataset.get(name):
            said.append(table((name, "images"), list(dataset[name].items())))
    return "\n\n".join(said)


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
    said = (
        f"On {report.accuracy.images} test images of {report.accuracy.groups} patients or groups that training has not "
        "seen, with 95 % bootstrap intervals over them."
    )
    return f"{said}\n\n" + table(
        ("figure", "value", "95 % interval"), [(name, *_cells(one)) for name, one in rows]
    )


def _classes(report: Report) -> str:
    header = ("class", "images", "patients", *CLASS_FIGURES)
    rows = [
        (one.label, one.images, one.groups, *(_short(getattr(one, name)) for name in CLASS_FIGURES))
        for one in report.classes
    ]
    return table(header, rows)


def _subgroups(report: Report) -> str:
    header = ("attribute", "subgroup", "images", "with a finding", "accuracy", "false-normal rate")
    rows = [
        (
            one.attribute,
            one.subgroup,
            one.images,
            one.findings,
            _short(one.accuracy),
            _short(one.false_normal_rate),
        )
        for one in report.subgroups
    ]
    return table(header, rows)


def _gates(gates: Sequence[GateResult]) -> str:
    rows = [(one.name, one.verdict + (", halts" if one.halts else ""), one.why) for one in gates]
    return table(("gate", "verdict", "why"), rows)


def _limits(gates: Sequence[GateResult]) -> str:
    unknown = [f"`{one.name}`: {one.why}" for one in gates if one.verdict == "not evaluable"]
    failed = [f"`{one.name}`: {one.why}" for one in gates if one.verdict == "fail"]
    said = [
        "The lungs of the shortcut audit are a fixed box, not a segmentation.",
        "A grey photograph, or a lateral film that nobody calls lateral, may pass the checks before the model.",
        *(f"Failed: {one}." for one in failed),
        *(f"Not known: {one}." for one in unknown),
    ]
    return "\n".join(f"- {one}" for one in said)


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in row) + " |" for row in lines)


def _cells(found: Estimate | None) -> tuple[str, str]:
    return ("–", "–") if found is None else (f"{found.value:.3f}", f"{found.low:.3f} to {found.high:.3f}")


def _short(found: Estimate | None) -> str:
    return "–" if found is None else f"{found.value:.2f} ({found.low:.2f} to {found.high:.2f})"
