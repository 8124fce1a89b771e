"""Compare a dataset version with the last accepted one: sources, classes, shares and grey values.

`data.validation.checks` calls `compare`; `data.validation.distribution_shift` does the statistics. Only sources
that both versions have are compared.
"""

from data.validation import distribution_shift, profile
from data.validation.config import Baseline, Check, Subject, ValidationConfig, Verdict
from data.validation.distribution_shift import Shift
from data.validation.profile import GREY, SHARES, Profile


def compare(
    subject: Subject, whole: Profile, baseline: Baseline | None, config: ValidationConfig
) -> list[Check]:
    """Compare with the last accepted version, over the sources that both have."""
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
            _shift_check(
                f"shift_{name}",
                f"shares of {name}",
                distribution_shift.shares(*sides, people),
                config.largest_index,
                config,
                baseline,
            )
            for name, sides in compared.items()
        ),
        *_grey_values(subject, whole, baseline, shared, config),
    ]


def _sources(whole: Profile, baseline: Baseline) -> Check:
    new = sorted({*whole.images} - {*baseline.profile.images})
    verdict: Verdict = "pass"
    finding = "the same sources as before"
    if baseline.missing_sources:
        verdict, finding = "fail", f"no image any more of: {', '.join(baseline.missing_sources)}"
    elif new:
        verdict, finding = "warn", f"new, with nothing to compare with: {', '.join(new)}"
    figures = {"new": {name: whole.images[name] for name in new}, "missing": list(baseline.missing_sources)}
    return Check(name="sources", verdict=verdict, finding=finding, figures=figures)


def _lost_classes(whole: Profile, baseline: Baseline, shared: set[str], config: ValidationConfig) -> Check:
    """Find classes that this version should have by the patients of the baseline, and lacks.

    Shares of patients, not of images: a class of one patient with thirty images is easily missed.
    """
    there = whole.values("label", shared)
    patients = sum(whole.patients[source] for source in shared)
    chances = {
        name: distribution_shift.chance_of_none(share, patients)
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


def _grey_values(
    subject: Subject, whole: Profile, baseline: Baseline, shared: set[str], config: ValidationConfig
) -> list[Check]:
    """Compare grey values of all rows and, since good old rows thin a bad new batch, of the new rows alone."""
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
            before, after = (side.histograms(name, inside) for side in (baseline.profile, rows))
            what = f"{name} of the grey values" + (" of the new images" if mark else "")
            shift = distribution_shift.grey_values(before, after, people)
            checks.append(
                _shift_check(f"shift_{mark}{name}", what, shift, config.largest_distance, config, baseline)
            )
    return checks


def _shift_check(
    name: str, what: str, shift: Shift, limit: float, config: ValidationConfig, baseline: Baseline
) -> Check:
    figures = {
        "size": round(shift.size, 4),
        "limit": limit,
        "chance": float(f"{shift.p:.2g}"),
        "patients": [round(people) for people in shift.groups],
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
