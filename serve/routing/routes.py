"""Which version answers a request: a sticky, weighted choice that is pure arithmetic.

A key lands on one of a million points. Every version but the champion owns ranges of points, the champion the rest.
Raising a version's weight takes points from the champion, lowering it returns them, so a change of one weight never
moves a key between two other versions, and ramping up moves keys one way only. Knows neither Ray nor HTTP.
"""

import hashlib
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

POINTS = 1_000_000
"""Weights are whole numbers of these: steps of 0.0001 %."""
Role = Literal["champion", "canary", "previous", "staged"]
Span = tuple[int, int]
"""Points from the first number up to, but not including, the second."""


class RoutingError(ValueError):
    """Impossible routes; the message names the version."""


def app_name(model: str, version: str) -> str:
    """Return the name of the Serve application of one model version."""
    return f"{model}-v{version}"


@dataclass(frozen=True, kw_only=True)
class Target:
    """A live version of a model."""

    version: str
    role: Role
    bundle_key: str
    """Where its release bundle lies."""
    spans: tuple[Span, ...] = ()
    """Its points, in the order in which it received them; the champion owns none and has what is left."""
    mirror: float = 0.0
    """Share of the other versions' requests that are mirrored to it, 0 to 1."""

    def __post_init__(self) -> None:
        if not 0 <= self.mirror <= 1:
            raise RoutingError(f"the mirror of version {self.version} is {self.mirror}, not between 0 and 1")
        if any(not 0 <= first < end <= POINTS for first, end in self.spans):
            raise RoutingError(f"version {self.version} has impossible points: {self.spans}")
        if self.role == "champion" and self.spans:
            raise RoutingError(f"version {self.version} is the champion, which has what is left")

    @property
    def points(self) -> int:
        return _points(self.spans)


@dataclass(frozen=True, kw_only=True)
class Routes:
    """All live versions of one model."""

    model: str
    targets: tuple[Target, ...]
    salt: str = ""
    """Decides which keys land where; changed only while the champion has all of them."""
    revision: int = 0
    """Of two routes, the one with the higher number is newer."""

    def __post_init__(self) -> None:
        champions = [target.version for target in self.targets if target.role == "champion"]
        if len(champions) != 1:
            raise RoutingError(f"{self.model} needs exactly one champion, got {champions}")
        if len({target.version for target in self.targets}) != len(self.targets):
            raise RoutingError(f"{self.model} lists a version twice")
        taken = sorted(span for target in self.targets for span in target.spans)
        if any(before[1] > after[0] for before, after in itertools.pairwise(taken)):
            raise RoutingError(f"two versions of {self.model} have the same points")

    @property
    def champion(self) -> Target:
        return next(target for target in self.targets if target.role == "champion")

    def target(self, version: str) -> Target:
        """Return a live version.

        Raises:
            RoutingError: it is not live.
        """
        for target in self.targets:
            if target.version == version:
                return target
        live = ", ".join(target.version for target in self.targets)
        raise RoutingError(f"version {version} of {self.model} is not live; live are {live}")

    @property
    def weights(self) -> dict[str, float]:
        """Version → share of the keys; they sum to 1."""
        given = {target.version: target.points for target in self.targets}
        given[self.champion.version] = POINTS - sum(given.values())
        return {version: points / POINTS for version, points in given.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Routes":
        """Build from `dataclasses.asdict`, also after a round trip through JSON."""
        targets = tuple(
            Target(**{**target, "spans": tuple((first, end) for first, end in target["spans"])})
            for target in values["targets"]
        )
        return cls(**{**values, "targets": targets})


def point(key: str, salt: str) -> int:
    """Map a key to a point: uniform, by the first 64 bits of SHA-256 over salt and key."""
    digest = hashlib.sha256(f"{salt}\0{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") * POINTS >> 64


def assign(routes: Routes, key: str) -> Target:
    """Return the version for `key`; the same for the same weights.

    Args:
        key: a pseudonym of patient, study or request, the stickiest there is.
    """
    where = point(key, f"{routes.model}\0{routes.salt}")
    for target in routes.targets:
        if any(first <= where < end for first, end in target.spans):
            return target
    return routes.champion


def mirrors(routes: Routes, served: str, request_id: str) -> list[Target]:
    """Return the versions that a request is mirrored to, drawn for each by the request's id."""
    return [
        target
        for target in routes.targets
        if target.mirror
        and target.version != served
        and point(request_id, f"mirror\0{target.version}") < target.mirror * POINTS
    ]


def set_weights(routes: Routes, weights: Mapping[str, float]) -> Routes:
    """Set weights; versions that are not named keep theirs, and the champion has what is left.

    Shrinking versions return points first, their newest first.

    Raises:
        RoutingError: a version is not live, a weight is impossible, or the champion's share would be negative or
            other than the one given.
    """
    wanted = {version: _whole(version, share) for version, share in weights.items()}
    own = wanted.pop(routes.champion.version, None)
    by_version = {target.version: target for target in routes.targets}
    for version in wanted:
        routes.target(version)
    for version, points in wanted.items():
        spans = _first(by_version[version].spans, points)
        by_version[version] = replace(by_version[version], spans=spans)
    for version, points in wanted.items():
        spans = by_version[version].spans
        free = _free(span for target in by_version.values() for span in target.spans)
        missing = points - _points(spans)
        if missing > _points(free):
            raise RoutingError(f"the weights of {routes.model} sum to more than 1")
        by_version[version] = replace(by_version[version], spans=_joined([*spans, *_first(free, missing)]))
    changed = replace(routes, targets=tuple(by_version[target.version] for target in routes.targets))
    left = POINTS - sum(target.points for target in changed.targets)
    if own is not None and own != left:
        raise RoutingError(
            f"the weights of {routes.model} leave its champion {left / POINTS:g}, not the {own / POINTS:g} asked for"
        )
    return changed


def add(routes: Routes, version: str, bundle_key: str) -> Routes:
    """Add a canary without weight.

    A version that is kept warm, staged, or was rolled back a moment ago becomes a canary.
    """
    known = [target for target in routes.targets if target.version == version]
    if any(target.role == "champion" or (target.role == "canary" and target.spans) for target in known):
        raise RoutingError(f"version {version} of {routes.model} is live already")
    others = tuple(target for target in routes.targets if target.version != version)
    canary = Target(version=version, role="canary", bundle_key=bundle_key)
    return replace(routes, targets=(*others, canary))


def promote(routes: Routes, version: str) -> Routes:
    """Make a version the champion, with all that no canary owns; the old champion stays warm as `previous`."""
    before, after = routes.champion, routes.target(version)
    if before == after:
        return routes
    changed = {
        before.version: replace(before, role="previous", spans=(), mirror=0.0),
        after.version: replace(after, role="champion", spans=(), mirror=0.0),
    }
    others = (target for target in routes.targets if target.role != "previous" or target.version in changed)
    return replace(routes, targets=tuple(changed.get(target.version, target) for target in others))


def drain(routes: Routes, version: str) -> Routes:
    """Take a canary out of all traffic; it keeps running."""
    target = routes.target(version)
    if target.role == "champion":
        raise RoutingError(
            f"version {version} is the champion of {routes.model}: make another one the champion"
        )
    out = replace(target, spans=(), mirror=0.0)
    return replace(routes, targets=tuple(out if other == target else other for other in routes.targets))


def set_mirror(routes: Routes, version: str, share: float) -> Routes:
    """Mirror this share of the others' requests to a version."""
    target = routes.target(version)
    return replace(
        routes,
        targets=tuple(replace(other, mirror=share) if other == target else other for other in routes.targets),
    )


def resalt(routes: Routes, salt: str) -> Routes:
    """Draw keys anew if the champion has them all, so that no key changes its version; else leave the routes."""
    return routes if any(target.spans for target in routes.targets) else replace(routes, salt=salt)


def remove(routes: Routes, version: str) -> Routes:
    """Remove a version that has no traffic."""
    target = routes.target(version)
    if target.role == "champion" or target.spans:
        raise RoutingError(f"version {version} of {routes.model} has traffic")
    return replace(routes, targets=tuple(other for other in routes.targets if other != target))


def _whole(version: str, share: float) -> int:
    if not 0 <= share <= 1:
        raise RoutingError(f"the weight of version {version} is {share}, not between 0 and 1")
    return round(share * POINTS)


def _points(spans: Iterable[Span]) -> int:
    return sum(end - first for first, end in spans)


def _first(spans: Iterable[Span], points: int) -> tuple[Span, ...]:
    """Return the first so many points of some spans, in their order."""
    first_spans: list[Span] = []
    for first, end in spans:
        taken = min(points, end - first)
        if taken > 0:
            first_spans.append((first, first + taken))
        points -= taken
    return tuple(first_spans)


def _joined(spans: Sequence[Span]) -> tuple[Span, ...]:
    """Merge neighbours that also follow each other in the order."""
    joined: list[Span] = []
    for first, end in spans:
        if joined and joined[-1][1] == first:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((first, end))
    return tuple(joined)


def _free(taken: Iterable[Span]) -> list[Span]:
    free, at = [], 0
    for first, end in sorted(taken):
        if at < first:
            free.append((at, first))
        at = end
    return [*free, (at, POINTS)] if at < POINTS else free
