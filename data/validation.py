"""May a model be trained on this dataset version? Every check, and its verdict, as arithmetic over its rows.

`data.acceptance` reads a version, calls `validate` and carries out the verdict. A check that has too little to
judge by says so and halts nothing. pandera holds the schema and the ranges; `data.shifts` the comparison with
the last accepted version. Knows no store, no database and no model. Findings carry counts and names of columns,
classes and sources, never a value of a row.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Literal

import pandas as pd
import pandera.pandas as pa

from data import profile, shifts
from data.profile import GREY, SHARES, Profile
from data.shifts import Shift
from data.split import SPLITS

Verdict = Literal["pass", "warn", "fail", "not evaluable"]
UNLICENSED = "unknown"
OLDEST_YEARS = 130
LONGEST_VIEW = 40

LICENSES = (
    *(
        "CC0*",
        "PDDL*",
        "public domain*",
        "CC BY",
        "CC BY [0123456789(]*",
        "CC BY SA*",
        "CC BY NC",
        "CC BY NC [0123456789(]*",
    ),
    *("CC BY NC SA*", "ODC By*", "MIT*", "repo MIT*", "Apache*", "NIH Clinical Center*"),
    *("RSNA Pneumonia Challenge*", "listed as authorized for everyone*"),
    "Data files © original authors*",
)
"""Conditions that allow to train a model for research: with attribution, some not commercially, none that forbids
derivatives. Patterns of the shell, without regard to case; hyphens and underscores count as blanks."""


@dataclass(frozen=True, kw_only=True)
class ValidationConfig:
    """Limits of the checks; measured false alarms and misses of the comparisons are in docs/data.md."""

    licenses: tuple[str, ...] = LICENSES
    """Allowed licences. One that is named and matches none halts."""
    allow_unlicensed: bool = True
    """Whether images without a licence (a site's own) only warn; false: they halt."""
    judged_from: int = 20
    """Images from which a share is judged."""
    largest_reject_share: float = 0.5
    """Of the images that were looked at, those that may be in quarantine."""
    largest_extreme_share: float = 0.05
    """Of the images, those that may be almost black, almost white or almost without contrast."""
    darkest: float = 6.0
    """Mean grey level (of 255) below which an image is almost black; real X-rays: 20 to 216."""
    brightest: float = 240.0
    """Mean grey level above which it is almost white."""
    least_contrast: float = 6.0
    """Standard deviation of the grey levels below which it is almost without contrast; real X-rays: 37 to 107."""
    fewest_classes: int = 2
    """Classes that have an image."""
    largest_class_share: float = 0.95
    """Share of the commonest class."""
    largest_index: float = 0.25
    """Population stability index from which shares of classes, sexes, ages, views or sources have shifted."""
    largest_distance: float = 0.2
    """Kolmogorov-Smirnov distance from which grey values have shifted."""
    chance: float = 1e-4
    """How improbable a shift has to be besides: what few images may show by chance alone raises no alarm."""

    def __post_init__(self) -> None:
        for name in ("largest_reject_share", "largest_extreme_share", "largest_class_share", "chance"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"validation.{name} is a share: give 0 to 1, not {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class Check:
    name: str
    verdict: Verdict
    finding: str
    """One line for people."""
    figures: dict[str, Any] = field(default_factory=dict)
    """What the verdict rests on."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One dataset version, ready to be judged."""

    rows: pd.DataFrame
    """The columns of `data.logical.LogicalRow` and, of the pixels, `mean`, `contrast` and `pixel_bytes`."""
    described: Mapping[str, Any]
    """Its manifest."""


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """The accepted version to compare with."""

    version: str
    profile: Profile
    same_pixels: bool
    """Whether its images became pixels in the same way, so that grey values can be compared."""
    sample_hashes: frozenset[str]
    """Of its rows: the others of a version are newcomers."""
    missing_sources: tuple[str, ...]
    """Sources that it has and that this version was meant to have, and has not."""


def validate(
    subject: Subject, baseline: Baseline | None, config: ValidationConfig
) -> tuple[list[Check], Profile | None]:
    """Every check in a fixed order; a version may be trained on when none of them says `fail`.

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
        *_against(subject, whole, baseline, config),
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
    """Run a pandera schema; what fails is told by column, rule and number of rows."""
    try:
        schema.validate(rows, lazy=True)
    except pa.errors.SchemaErrors as refused:
        failures = refused.failure_cases
        told: dict[str, int] = {}
        for (column, check), cases in failures.groupby(["column", "check"], dropna=False):
            whole = cases["schema_context"].eq("DataFrameSchema").all()
            text = _plain(str(check) if whole else f"{column}: {check}")
            told[text] = len(cases["index"].dropna().unique()) or len(rows)
        finding = "; ".join(f"{text} ({number} rows)" for text, number in sorted(told.items()))
        return Check(name=name, verdict="fail", finding=finding, figures={"failures": told})
    return Check(name=name, verdict="pass", finding=well, figures={"rows": len(rows)})


def _plain(text: str) -> str:
    """pandera's own words in ours."""
    text = text.replace("not_nullable", "a value is missing").replace("field_uniqueness", "occurs twice")
    return re.sub(r"(coerce_)?dtype\(.*\)", "is of another type", text)


def _completeness(subject: Subject, config: ValidationConfig) -> Check:
    described, rows = subject.described, subject.rows
    told = sum(sum(by_class.values()) for by_class in described["counts"].values())
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
    if told != len(rows):
        verdict, finding = "fail", f"the files hold {len(rows)} images and the manifest says {told}"
    elif share > config.largest_reject_share and seen >= config.judged_from:
        verdict = "fail"
        finding = f"{rejected} of {seen} images are in quarantine, {config.largest_reject_share:.0%} may be"
    elif empty:
        verdict, finding = "warn", f"{finding}; no image in: {', '.join(empty)}"
    return Check(name="completeness", verdict=verdict, finding=finding, figures=figures)


def _grey_extremes(subject: Subject, config: ValidationConfig) -> Check:
    rows = subject.rows
    counts = {
        "almost black": int((rows["mean"] < config.darkest).sum()),
        "almost white": int((rows["mean"] > config.brightest).sum()),
        "almost without contrast": int((rows["contrast"] < config.least_contrast).sum()),
    }
    extreme = (
        (rows["mean"] < config.darkest)
        | (rows["mean"] > config.brightest)
        | (rows["contrast"] < config.least_contrast)
    )
    share = float(extreme.mean())
    finding = f"{share:.1%} of the images: " + ", ".join(
        f"{number} {name}" for name, number in counts.items()
    )
    verdict: Verdict = "pass"
    if share > config.largest_extreme_share:
        verdict = "fail" if len(rows) >= config.judged_from else "not evaluable"
        finding += f"; {config.largest_extreme_share:.0%} may be"
    return Check(
        name="grey_extremes", verdict=verdict, finding=finding, figures={**counts, "share": round(share, 4)}
    )


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
    figures = {"refused": refused, "unlicensed": unlicensed, "licenses": len(counts)}
    if refused:
        shown = ", ".join(f"{name[:80]!r} ({number} images)" for name, number in sorted(refused.items())[:5])
        return Check(
            name="license",
            verdict="fail",
            finding=f"not among the allowed licences: {shown}; leave these images out or add the licence",
            figures=figures,
        )
    if unlicensed:
        return Check(
            name="license",
            verdict="warn" if config.allow_unlicensed else "fail",
            finding=f"{unlicensed} images name no licence: fill the column `license` of their manifest",
            figures=figures,
        )
    return Check(
        name="license", verdict="pass", finding=f"{len(counts)} licences, all allowed", figures=figures
    )


def _license(text: str) -> str:
    return re.sub(r"[-_\s]+", " ", text).strip().casefold()


def _against(
    subject: Subject, whole: Profile, baseline: Baseline | None, config: ValidationConfig
) -> list[Check]:
    """The comparison with the last accepted version, over the sources that both have."""
    if baseline is None:
        why = "no accepted version shares a source with this one: there is nothing to compare with"
        return [Check(name="baseline", verdict="not evaluable", finding=why)]
    before = baseline.profile
    shared = {*before.images} & {*whole.images}
    people = before.people(shared), whole.people(shared)
    compared = {
        **{name: (before.values(name, shared), whole.values(name, shared)) for name in SHARES},
        "source": ({s: before.images[s] for s in shared}, {s: whole.images[s] for s in shared}),
    }
    return [
        _sources(whole, baseline),
        _lost_classes(whole, baseline, shared, config),
        *(
            _judged(
                f"shift_{name}",
                f"shares of {name}",
                shifts.shares(*sides, people),
                config.largest_index,
                config,
                baseline,
            )
            for name, sides in compared.items()
        ),
        *_grey(subject, whole, baseline, shared, config),
    ]


def _sources(whole: Profile, baseline: Baseline) -> Check:
    new = sorted({*whole.images} - {*baseline.profile.images})
    figures = {"new": {name: whole.images[name] for name in new}, "missing": list(baseline.missing_sources)}
    if baseline.missing_sources:
        finding = f"no image any more of: {', '.join(baseline.missing_sources)}"
        return Check(name="sources", verdict="fail", finding=finding, figures=figures)
    if new:
        finding = f"new, with nothing to compare with: {', '.join(new)}"
        return Check(name="sources", verdict="warn", finding=finding, figures=figures)
    return Check(name="sources", verdict="pass", finding="the same sources as before", figures=figures)


def _lost_classes(whole: Profile, baseline: Baseline, shared: set[str], config: ValidationConfig) -> Check:
    """Classes that this version should have by the patients of the baseline, and has not.

    Shares of patients, not of images: a class of one patient with thirty images is easily missed.
    """
    there = whole.values("label", shared)
    patients = sum(whole.patients[source] for source in shared)
    chances = {
        name: shifts.chance_of_none(share, patients)
        for name, share in baseline.profile.shares_of_patients(shared).items()
        if not there.get(name)
    }
    lost = [name for name, chance in chances.items() if chance < config.chance]
    finding = "every class of the version before"
    if chances:
        finding = f"no image any more of: {', '.join(chances)}"
    return Check(
        name="lost_classes",
        verdict="fail" if lost else "warn" if chances else "pass",
        finding=finding,
        figures={"chance": chances},
    )


def _grey(
    subject: Subject, whole: Profile, baseline: Baseline, shared: set[str], config: ValidationConfig
) -> list[Check]:
    """Grey values of all rows and, since a bad batch is thinned by the good ones before it, of the new rows."""
    if not baseline.same_pixels:
        why = f"version {baseline.version} has pixels of another size or transform"
        return [Check(name=f"shift_{name}", verdict="not evaluable", finding=why) for name in GREY]
    scopes = {"": whole}
    new = ~subject.rows["sample_hash"].isin(baseline.sample_hashes)
    if new.any() and not new.all():
        scopes["new_"] = profile.of(subject.rows[new])
    checks = []
    for mark, rows in scopes.items():
        inside = shared & {*rows.images}
        people = baseline.profile.people(inside), rows.people(inside)
        for name in GREY:
            before, after = (one.histograms(name, inside) for one in (baseline.profile, rows))
            what = f"{name} of the grey values" + (" of the new images" if mark else "")
            shift = shifts.grey_values(before, after, people)
            checks.append(
                _judged(f"shift_{mark}{name}", what, shift, config.largest_distance, config, baseline)
            )
    return checks


def _judged(
    name: str, what: str, shift: Shift, limit: float, config: ValidationConfig, baseline: Baseline
) -> Check:
    figures = {
        "size": round(shift.size, 4),
        "limit": limit,
        "chance": float(f"{shift.p:.2g}"),
        "patients": [round(one) for one in shift.groups],
    }
    beyond = shift.beyond(limit, config.chance)
    words = "shifted, " if beyond else ""
    return Check(
        name=name,
        verdict="fail" if beyond else "pass" if min(shift.groups) > 0 else "not evaluable",
        finding=(
            f"{what}: {words}{shift.size:.3f} away from version {baseline.version} "
            f"(limit {limit}, chance {shift.p:.1g})"
        ),
        figures=figures,
    )


def failed(checks: Sequence[Check]) -> list[Check]:
    return [one for one in checks if one.verdict == "fail"]
