"""Validate a dataset version: every check, and its verdict, as arithmetic over its rows.

`data.validation.acceptance` reads a version, calls `validate` and carries out the verdict. A check that has too
little to judge by says so and halts nothing. pandera holds the schema and the ranges;
`data.validation.distribution_shift` the comparison with the last accepted version. Knows no store, no database and
no model. Findings carry counts and names of columns, classes and sources, never a value of a row.
"""

import re
from collections.abc import Mapping
from fnmatch import fnmatchcase

import pandas as pd
import pandera.pandas as pa

from data.dataset.split import SPLITS
from data.validation import profile
from data.validation.config import UNLICENSED, Baseline, Check, Subject, ValidationConfig, Verdict
from data.validation.profile import GREY, Profile
from data.validation.shift_checks import compare

OLDEST_YEARS = 130
LONGEST_VIEW = 40


def validate(
    subject: Subject, baseline: Baseline | None, config: ValidationConfig
) -> tuple[list[Check], Profile | None]:
    """Run every check in a fixed order; a version may be trained on when none of them says `fail`.

    Returns:
        the checks, and the version's profile; None where its rows are of another schema and nothing else was checked.
    """
    schema = _schema(subject)
    if schema.verdict == "fail":
        return [schema], None  # the columns that the others read may be missing or of another kind
    whole = profile.of(subject.rows)
    checks = [
        schema,
        _ranges(subject),
        _completeness(subject, config),
        _grey_extremes(subject, config),
        _class_balance(subject, config),
        _licenses(subject, config),
        *compare(subject, whole, baseline, config),
    ]
    return checks, whole


def _schema(subject: Subject) -> Check:
    classes = list(subject.described["classes"])
    digest = pa.Check.str_matches(r"^[0-9a-f]{64}$", error="is no SHA-256")

    def text(*checks: pa.Check, nullable: bool = False, unique: bool = False) -> pa.Column:
        return pa.Column(str, list(checks), nullable=nullable, unique=unique, coerce=nullable)

    schema = pa.DataFrameSchema(
        {
            "sample_hash": text(digest, unique=True),
            "label": text(pa.Check.isin(classes, error="is no class of the version")),
            "label_index": pa.Column(int, coerce=True),
            "group_key": text(pa.Check.str_matches(r"\S", error="is empty")),
            "split": text(pa.Check.isin(SPLITS, error="is no side of the split")),
            "source": text(pa.Check.str_matches(r"\S", error="is empty")),
            "sha256": text(digest),
            **{name: text(nullable=True) for name in ("sex", "view", "site")},
            **{name: pa.Column(float, nullable=name == "age", coerce=True) for name in ("age", *GREY)},
            "pixel_bytes": pa.Column(int, coerce=True),
        },
        checks=[
            pa.Check(
                lambda rows: rows.groupby("group_key")["split"].transform("nunique") == 1,
                error="groups are on several sides of the split",
            ),
            pa.Check(
                lambda rows: rows["label_index"] == rows["label"].map({n: i for i, n in enumerate(classes)}),
                error="labels and their numbers disagree",
            ),
        ],
    )
    if missing := sorted({*schema.columns} - {*subject.rows.columns}):
        return Check(name="schema", verdict="fail", finding=f"no column {', '.join(missing)}")
    if subject.rows.empty:
        return Check(name="schema", verdict="fail", finding="no row")
    return _held("schema", schema, subject.rows, f"{len(schema.columns)} columns as they should be")


def _ranges(subject: Subject) -> Check:
    side = subject.described["settings"]["pixels"]["side"]
    grey = pa.Check.in_range(0, 255, error="is no grey level")
    schema = pa.DataFrameSchema(
        {
            "age": pa.Column(
                checks=pa.Check.in_range(0, OLDEST_YEARS, error="is no age of a person"), nullable=True
            ),
            "sex": pa.Column(checks=pa.Check.isin(["F", "M", "O"], error="is not F, M or O"), nullable=True),
            "view": pa.Column(
                checks=pa.Check.str_length(1, LONGEST_VIEW, error="is empty or too long"), nullable=True
            ),
            "mean": pa.Column(checks=grey),
            "contrast": pa.Column(checks=grey),
            "pixel_bytes": pa.Column(checks=pa.Check.eq(side * side, error=f"is not {side} x {side}")),
        }
    )
    return _held("ranges", schema, subject.rows, "every value lies in its range")


def _held(name: str, schema: pa.DataFrameSchema, rows: pd.DataFrame, well: str) -> Check:
    """Run a pandera schema; failures are listed by column, rule and number of rows."""
    try:
        schema.validate(rows, lazy=True)
    except pa.errors.SchemaErrors as refused:
        failures = refused.failure_cases
        failed_rows: dict[str, int] = {}
        for (column, check), cases in failures.groupby(["column", "check"], dropna=False):
            whole = cases["schema_context"].eq("DataFrameSchema").all()
            text = _plain(str(check) if whole else f"{column}: {check}")
            failed_rows[text] = len(cases["index"].dropna().unique()) or len(rows)
        finding = "; ".join(f"{text} ({number} rows)" for text, number in sorted(failed_rows.items()))
        return Check(name=name, verdict="fail", finding=finding, figures={"failures": failed_rows})
    return Check(name=name, verdict="pass", finding=well, figures={"rows": len(rows)})


def _plain(text: str) -> str:
    """Translate pandera's own words."""
    text = text.replace("not_nullable", "a value is missing").replace("field_uniqueness", "occurs twice")
    return re.sub(r"(coerce_)?dtype\(.*\)", "is of another type", text)


def _completeness(subject: Subject, config: ValidationConfig) -> Check:
    described, rows = subject.described, subject.rows
    listed = sum(sum(by_class.values()) for by_class in described["counts"].values())
    rejected = sum(number for reason, number in described["quarantined"].items() if reason != "duplicate")
    seen = len(rows) + rejected
    share = rejected / seen if seen else 1.0
    empty = [split for split in SPLITS if not (rows["split"] == split).any()]
    known = {name: round(float(rows[name].notna().mean()), 3) for name in ("sex", "age", "view")}
    figures = {"rows": len(rows), "rejected": rejected, "rejected_share": round(share, 4), "known": known}
    verdict: Verdict = "pass"
    finding = f"{len(rows)} images, {share:.1%} of what was looked at in quarantine; known: " + ", ".join(
        f"{name} {part:.0%}" for name, part in known.items()
    )
    if listed != len(rows):
        verdict, finding = "fail", f"the files hold {len(rows)} images and the manifest says {listed}"
    elif share > config.largest_reject_share and seen >= config.judged_from:
        verdict = "fail"
        finding = f"{rejected} of {seen} images are in quarantine, {config.largest_reject_share:.0%} may be"
    elif empty:
        verdict, finding = "warn", f"{finding}; no image in: {', '.join(empty)}"
    return Check(name="completeness", verdict=verdict, finding=finding, figures=figures)


def _grey_extremes(subject: Subject, config: ValidationConfig) -> Check:
    rows = subject.rows
    extremes = {
        "almost black": rows["mean"] < config.darkest,
        "almost white": rows["mean"] > config.brightest,
        "almost without contrast": rows["contrast"] < config.least_contrast,
    }
    counts = {name: int(extreme.sum()) for name, extreme in extremes.items()}
    share = float(pd.DataFrame(extremes).any(axis=1).mean())
    finding = f"{share:.1%} of the images: " + ", ".join(f"{count} {name}" for name, count in counts.items())
    verdict: Verdict = "pass"
    if share > config.largest_extreme_share:
        verdict = "fail" if len(rows) >= config.judged_from else "not evaluable"
        finding += f"; {config.largest_extreme_share:.0%} may be"
    figures = {**counts, "share": round(share, 4)}
    return Check(name="grey_extremes", verdict=verdict, finding=finding, figures=figures)


def _class_balance(subject: Subject, config: ValidationConfig) -> Check:
    counts = subject.rows["label"].value_counts()
    share = float(counts.iloc[0] / counts.sum())
    commonest = str(counts.index[0])
    figures = {"classes": {str(name): int(number) for name, number in sorted(counts.items())}}
    verdict: Verdict = "pass"
    finding = f"{len(counts)} classes; the commonest, {commonest}, has {share:.0%} of the images"
    if len(counts) < config.fewest_classes:
        verdict = "fail"
        finding = (
            f"only {', '.join(map(str, counts.index))} {'has' if len(counts) == 1 else 'have'} images; "
            f"{config.fewest_classes} classes are the least to learn from"
        )
    elif share > config.largest_class_share:
        verdict = "fail" if len(subject.rows) >= config.judged_from else "not evaluable"
        finding += f"; {config.largest_class_share:.0%} is the most"
    return Check(name="class_balance", verdict=verdict, finding=finding, figures=figures)


def _licenses(subject: Subject, config: ValidationConfig) -> Check:
    counts: Mapping[str, int] = subject.described["licenses"]
    allowed = [_license(pattern) for pattern in config.licenses]
    refused = {
        name: number
        for name, number in counts.items()
        if not name.startswith(UNLICENSED)
        and not any(fnmatchcase(_license(name), pattern) for pattern in allowed)
    }
    unlicensed = sum(number for name, number in counts.items() if name.startswith(UNLICENSED))
    verdict: Verdict = "pass"
    finding = f"{len(counts)} licences, all allowed"
    if refused:
        shown = ", ".join(f"{name[:80]!r} ({number} images)" for name, number in sorted(refused.items())[:5])
        verdict = "fail"
        finding = f"not among the allowed licences: {shown}; leave these images out or add the licence"
    elif unlicensed:
        verdict = "warn" if config.allow_unlicensed else "fail"
        finding = f"{unlicensed} images name no licence: fill the column `license` of their manifest"
    figures = {"refused": refused, "unlicensed": unlicensed, "licenses": len(counts)}
    return Check(name="license", verdict=verdict, finding=finding, figures=figures)


def _license(text: str) -> str:
    return re.sub(r"[-_\s]+", " ", text).strip().casefold()
