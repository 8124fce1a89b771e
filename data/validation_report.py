"""The page that says why a dataset version may or may not be trained on: one HTML file, nothing loaded from outside.

`data.acceptance` stores it under the version. It shows what the checks found and how the version stands beside the
accepted one, in counts; no image, no path, no patient.
"""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from data.profile import BIN_OF, BINS, GREY, SHARES, Profile
from data.validation import Check, failed

STYLE = """
:root { color-scheme: light dark; --line: #8884; --now: #2f6fde; --before: #e08a1e; --bad: #c0392b; --good: #2e8b57; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top; }
td.n { text-align: right; font-variant-numeric: tabular-nums; }
.verdict { font-weight: 600; white-space: nowrap; }
.fail { color: var(--bad); } .pass { color: var(--good); } .warn { color: var(--before); }
.bar { height: .5rem; min-width: 1px; } .now { background: var(--now); } .before { background: var(--before); }
svg { width: 100%; height: 9rem; } .key { opacity: .75; font-size: .9em; }
"""


def page(
    report: Mapping[str, Any], checks: Sequence[Check], now: Profile | None, before: Profile | None
) -> str:
    """The whole page.

    Args:
        now, before: profiles of the version and of the one that it was compared with.
    """
    version, baseline = escape(report["version"]), report["baseline"]
    bad = failed(checks)
    verdict = "may be trained on" if not bad else f"may not be trained on: failed checks: {len(bad)}"
    compared = f"compared with {escape(baseline)}" if baseline else "nothing to compare with"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f"<title>Dataset version {version}: validation</title><style>{STYLE}</style></head><body>"
        f"<h1>Dataset version {version} <span class='{'fail' if bad else 'pass'}'>{verdict}</span></h1>"
        f"<p>Judged {escape(report['judged_at'])}, {compared}.</p>"
        f"{_checks(checks)}{_profiles(now, before) if now else ''}</body></html>"
    )


def _checks(checks: Sequence[Check]) -> str:
    rows = "".join(
        f"<tr><td>{escape(one.name)}</td>"
        f"<td class='verdict {escape(one.verdict.split()[0])}'>{escape(one.verdict)}</td>"
        f"<td>{escape(one.finding)}</td></tr>"
        for one in checks
    )
    return f"<h2>Checks</h2><table><tr><th>check</th><th>verdict</th><th>finding</th></tr>{rows}</table>"


def _profiles(now: Profile, before: Profile | None) -> str:
    key = "<span style='color:var(--now)'>■</span> this version"
    if before is not None:
        key += " <span style='color:var(--before)'>■</span> the version before, same sources"
    shared = {*now.images} & {*before.images} if before else {*now.images}
    shown = shared or {*now.images}
    parts = [f"<h2>How it looks</h2><p class='key'>{key}</p>"]
    parts += [_shares(name, now, before, shown) for name in SHARES]
    parts += [_histogram(name, now, before, shown) for name in GREY]
    return "".join(parts)


def _shares(name: str, now: Profile, before: Profile | None, sources: set[str]) -> str:
    counts = now.values(name, sources)
    earlier = before.values(name, sources) if before else {}
    total, total_before = sum(counts.values()) or 1, sum(earlier.values()) or 1
    rows = ""
    for value in sorted({*counts, *earlier}):
        bars = _bar("now", counts.get(value, 0) / total)
        if before is not None:
            bars += _bar("before", earlier.get(value, 0) / total_before)
        rows += (
            f"<tr><td>{escape(value)}</td><td class='n'>{counts.get(value, 0)}</td>"
            f"<td class='n'>{earlier.get(value, 0) if before else ''}</td>"
            f"<td style='width:50%'>{bars}</td></tr>"
        )
    head = (
        f"<tr><th>{escape(name)}</th><th>images</th><th>{'before' if before else ''}</th><th>share</th></tr>"
    )
    return f"<h2>Shares of {escape(name)}</h2><table>{head}{rows}</table>"


def _bar(kind: str, share: float) -> str:
    return f"<div class='bar {kind}' style='width:{100 * share:.1f}%' title='{share:.1%}'></div>"


def _histogram(name: str, now: Profile, before: Profile | None, sources: set[str]) -> str:
    """Both distributions as lines over the grey levels."""
    sides = [("now", now)] + ([("before", before)] if before else [])
    densities = {kind: _density(one, name, sources) for kind, one in sides}
    top = max(float(density.max()) for density in densities.values()) or 1.0
    lines = "".join(
        f"<polyline fill='none' stroke='var(--{kind})' stroke-width='1.5' vector-effect='non-scaling-stroke' points='"
        + " ".join(f"{bin_},{100 - 95 * value / top:.1f}" for bin_, value in enumerate(density_B))
        + "'/>"
        for kind, density_B in densities.items()
    )
    return (
        f"<h2>{escape(name.capitalize())} of the grey values</h2>"
        f"<svg viewBox='0 0 {BINS} 100' preserveAspectRatio='none' role='img' aria-label='{escape(name)}'>{lines}</svg>"
        f"<p class='key'>0 to {(BINS - 1) * BIN_OF[name]:.0f} of 255 grey levels</p>"
    )


def _density(one: Profile, name: str, sources: set[str]) -> np.ndarray:
    histograms = one.histograms(name, sources)
    whole_B = sum(histograms.values(), start=np.zeros(BINS))
    smooth_B: np.ndarray = np.convolve(whole_B, np.ones(5) / 5, mode="same")
    return smooth_B / max(smooth_B.sum(), 1.0)
