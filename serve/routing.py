"""Which version answers a request: a sticky, weighted choice that is pure arithmetic.

A key lands on one of a million points. Every version but the champion owns ranges of points, the champion the rest.
Raising a version's weight gives it points of the champion's, lowering it gives them back, so a change of one weight
never moves a key between two other versions, and ramping up moves keys one way only. Knows neither Ray nor HTTP.
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
"""Points from the first number up to, without, the second."""


class RoutingError(ValueError):
    """Routes that cannot be; the message names the version."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """A live version of a model."""

    version: str
    role: Role
    bundle_key: str
    """Where its release bundle lies."""
    spans: tuple[Span, ...] = ()
    """Its points, in the order in which it was given them; none of the champion, who has what is left."""
    mirror: float = 0.0
    """Share of the other versions' requests that it is shown too, without answering them, 0 to 1."""

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
        champions = [one.version for one in self.targets if one.role == "champion"]
        if len(champions) != 1:
            raise RoutingError(f"{self.model} needs exactly one champion, got {champions}")
        if len({one.version for one in self.targets}) != len(self.targets):
            raise RoutingError(f"{self.model} lists a version twice")
        taken = sorted(span for one in self.targets for span in one.spans)
        if any(before[1] > after[0] for before, after in itertools.pairwise(taken)):
            raise RoutingError(f"two versions of {self.model} have the same points")

    @property
    def champion(self) -> Target:
        return next(one for one in self.targets if one.role == "champion")

    def target(self, version: str) -> Target:
        """Raises RoutingError: it is not live."""
        for one in self.targets:
            if one.version == version:
                return one
        live = ", ".join(one.version for one in self.targets)
        raise RoutingError(f"version {version} of {self.model} is not live; live are {live}")

    @property
    def weights(self) -> dict[str, float]:
        """Version → share of the keys; they sum to 1."""
        given = {one.version: one.points for one in self.targets}
        given[self.champion.version] = POINTS - sum(given.values())
        return {version: points / POINTS for version, points in given.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Routes":
        """From `dataclasses.asdict`, also after a way through JSON."""
        targets = tuple(
            Target(**{**one, "spans": tuple((first, end) for first, end in one["spans"])})
            for one in values["targets"]
        )
        return cls(**{**values, "targets": targets})


def point(key: str, salt: str) -> int:
    """Where a key lands: uniform on the points, by the first 64 bits of SHA-256 over salt and key."""
    digest = hashlib.sha256(f"{salt}\0{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") * POINTS >> 64


def assign(routes: Routes, key: str) -> Target:
    """The version that `key` is given, always the same for the same weights.

    Args:
        key: a pseudonym of patient, study or request; the caller chose the stickiest it has.
    """
    where = point(key, f"{routes.model}\0{routes.salt}")
    for target in routes.targets:
        if any(first <= where < end for first, end in target.spans):
            return target
    return routes.champion


def mirrors(routes: Routes, served: str, request_id: str) -> list[Target]:
    """The versions that are shown this request beside the one that answers it; drawn for each by the request's id."""
    return [
        one
        for one in routes.targets
        if one.mirror
        and one.version != served
        and point(request_id, f"mirror\0{one.version}") < one.mirror * POINTS
    ]


def reweighted(routes: Routes, weights: Mapping[str, float]) -> Routes:
    """With these weights; versions that are not named keep theirs, and the champion has what is left.

    Those that become smaller give points back first, the newest first.
    Raises:
        RoutingError: a version is not live, a weight is impossible, or they leave the champion less than nothing, or
            not what was said of it.
    """
    wanted = {version: _whole(version, share) for version, share in weights.items()}
    own = wanted.pop(routes.champion.version, None)
    by_version = {one.version: one for one in routes.targets}
    for version in wanted:
        routes.target(version)
    for version, points in wanted.items():
        spans = _first(by_version[version].spans, points)
        by_version[version] = replace(by_version[version], spans=spans)
    for version, points in wanted.items():
        spans = by_version[version].spans
        free = _free(span for one in by_version.values() for span in one.spans)
        missing = points - _points(spans)
        if missing > _points(free):
            raise RoutingError(f"the weights of {routes.model} sum to more than 1")
        by_version[version] = replace(by_version[version], spans=_joined([*spans, *_first(free, missing)]))
    found = replace(routes, targets=tuple(by_version[one.version] for one in routes.targets))
    left = POINTS - sum(one.points for one in found.targets)
    if own is not None and own != left:
        raise RoutingError(
            f"the weights of {routes.model} leave its champion {left / POINTS:g}, not the {own / POINTS:g} asked for"
        )
    return found


def added(routes: Routes, version: str, bundle_key: str) -> Routes:
    """With one more version, which has no weight yet.

    One that runs becomes a canary: kept warm, staged, or rolled back a moment ago.
    """
    mine = [one for one in routes.targets if one.version == version]
    if any(one.role == "champion" or (one.role == "canary" and one.spans) for one in mine):
        raise RoutingError(f"version {version} of {routes.model} is live already")
    kept = tuple(one for one in routes.targets if one.version != version)
    canary = Target(version=version, role="canary", bundle_key=bundle_key)
    return replace(routes, targets=(*kept, canary))


def crowned(routes: Routes, version: str) -> Routes:
    """With another champion, who has what no canary has; the one before stays warm, and no longer the one before it."""
    before, after = routes.champion, routes.target(version)
    if before == after:
        return routes
    changed = {
        before.version: replace(before, role="previous", spans=(), mirror=0.0),
        after.version: replace(after, role="champion", spans=(), mirror=0.0),
    }
    kept = (one for one in routes.targets if one.role != "previous" or one.version in changed)
    return replace(routes, targets=tuple(changed.get(one.version, one) for one in kept))


def withdrawn(routes: Routes, version: str) -> Routes:
    """With a canary out of all traffic, but still running."""
    target = routes.target(version)
    if target.role == "champion":
        raise RoutingError(
            f"version {version} is the champion of {routes.model}: make another one the champion"
        )
    out = replace(target, spans=(), mirror=0.0)
    return replace(routes, targets=tuple(out if one == target else one for one in routes.targets))


def mirrored(routes: Routes, version: str, share: float) -> Routes:
    """With a version that is shown this share of the others' requests."""
    target = routes.target(version)
    return replace(
        routes, targets=tuple(replace(one, mirror=share) if one == target else one for one in routes.targets)
    )


def resalted(routes: Routes, salt: str) -> Routes:
    """With keys drawn anew, where the champion has them all and nobody would notice; else as they are."""
    return routes if any(one.spans for one in routes.targets) else replace(routes, salt=salt)


def removed(routes: Routes, version: str) -> Routes:
    """Without a version that has no traffic."""
    target = routes.target(version)
    if target.role == "champion" or target.spans:
        raise RoutingError(f"version {version} of {routes.model} has traffic")
    return replace(routes, targets=tuple(one for one in routes.targets if one != target))


def _whole(version: str, share: float) -> int:
    if not 0 <= share <= 1:
        raise RoutingError(f"the weight of version {version} is {share}, not between 0 and 1")
    return round(share * POINTS)


def _points(spans: Iterable[Span]) -> int:
    return sum(end - first for first, end in spans)


def _first(spans: Iterable[Span], points: int) -> tuple[Span, ...]:
    """The first so many points of some spans, in their order."""
    found: list[Span] = []
    for first, end in spans:
        taken = min(points, end - first)
        if taken > 0:
            found.append((first, first + taken))
        points -= taken
    return tuple(found)


def _joined(spans: Sequence[Span]) -> tuple[Span, ...]:
    """Neighbours as one, where they follow each other in the order as well."""
    found: list[Span] = []
    for first, end in spans:
        if found and found[-1][1] == first:
            found[-1] = (found[-1][0], end)
        else:
            found.append((first, end))
    return tuple(found)


def _free(taken: Iterable[Span]) -> list[Span]:
    found, at = [], 0
    for first, end in sorted(taken):
        if at < first:
            found.append((at, first))
        at = end
    return [*found, (at, POINTS)] if at < POINTS else found
