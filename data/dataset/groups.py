"""Group the images that belong together, and keep each group on one side of the split, version after version.

`data.dataset.rows` calls `place`. Two promises hold at once: nothing that belongs together is on two sides of one
version, and no image changes sides between versions. A new image for which both cannot hold is withheld. What
earlier versions decided is handed in (`Placement`). Pure arithmetic: knows neither Ray, S3 nor PostgreSQL.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from data.dataset.split import SPLITS, Split, merge_groups, split_of

Image = tuple[str, str]
"""Source and SHA-256 of the original file."""

WOULD_JOIN_TWO_SIDES = "would_join_two_sides"


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """One image and what ties it to others."""

    source: str
    sha256: str
    """Of the original file."""
    patient: str
    """Pseudonym."""
    group_key: str
    """What the source says belongs together; the patient, where it says nothing."""
    pixel_sha256: str
    """Of the canonical pixels: equal ones tie."""
    others: tuple[tuple[str, str], ...] = ()
    """Patient and group key of each further owner of the same file, see `data.catalog.shared_files`."""

    @property
    def image(self) -> Image:
        return self.source, self.sha256


@dataclass(frozen=True, kw_only=True)
class Placement:
    """What one version decided about one image; it binds all later ones of the same seed."""

    source: str
    sha256: str
    patient: str
    group_key: str
    split: Split
    decided: int
    """Number of the decision; an earlier one has precedence."""

    @property
    def fact(self) -> tuple[str, str, str, str, str]:
        """All but the number."""
        return self.source, self.sha256, self.patient, self.group_key, self.split


@dataclass(frozen=True, kw_only=True)
class Withheld:
    """An image that stays out, since it would tie what earlier versions put on different sides."""

    image: Image
    sides: tuple[Split, ...]
    """What it would join, in the order of `SPLITS`."""

    @property
    def source(self) -> str:
        return self.image[0]

    @property
    def sha256(self) -> str:
        return self.image[1]

    @property
    def detail(self) -> str:
        """One line for the quarantine."""
        return f"it would tie images in {' and '.join(self.sides)} together"


@dataclass(frozen=True, kw_only=True)
class Placing:
    names: dict[Image, str]
    """The group of each placed image: the smallest group key in it."""
    sides: dict[Image, Split]
    withheld: tuple[Withheld, ...]
    """By image."""


def place(
    members: Iterable[Member],
    *,
    near: Iterable[tuple[Image, Image]] = (),
    before: Iterable[Placement] = (),
    key: bytes,
    seed: int = 0,
) -> Placing:
    """Put every image on a side, or withhold it.

    What an earlier version has placed comes first and stays; where two such images are tied only now (a
    corrected manifest, two versions of different sources), the one decided first stays, of equals the one that
    is held out of training. Newcomers that share a patient or group without a side stand or fall together:
    touching one side they join it, touching two they are withheld, touching none they make new groups, whose
    side is a keyed hash of the smallest group key.

    The result does not depend on the order of any argument, and placing the same images again after the result was
    added to `before` gives the same result. Decisions that came later may change it: see
    `data.dataset.split_decisions`.

    Args:
        near: pairs of near-duplicates.
        before: decisions of earlier versions with the same key and seed.
        key: the pseudonym key, see `split_of`.
    """
    ties = _Ties.of(sorted(members, key=lambda item: item.image), near)
    facts = sorted(before, key=lambda item: (item.decided, SPLITS[::-1].index(item.split), item.fact))
    board = _Board(ties, facts)
    known = {item.image: item for item in ties.members}
    first: dict[Image, Placement] = {}
    for fact in facts:
        first.setdefault((fact.source, fact.sha256), fact)
    for image, fact in first.items():
        if image in known:
            board.settle((image,), {fact.split})
    board.grow(ties.bundles([image for image in known if image not in first], board.side_of_tie))
    names = merge_groups(
        (known[image].group_key, tie)
        for image in (*board.sides, *board.untouched)
        for tie in ties.all_of(image)
    )
    for image in board.untouched:
        board.put(image, split_of(names[known[image].group_key], key, seed=seed))
    return Placing(
        names={image: names[known[image].group_key] for image in board.sides},
        sides=board.sides,
        withheld=board.left_out(),
    )


@dataclass(frozen=True, kw_only=True)
class _Ties:
    """What images have in common, as strings."""

    members: tuple[Member, ...]
    declared: Mapping[Image, tuple[str, ...]]
    """What the source says: patients and groups."""
    seen: Mapping[Image, tuple[str, ...]]
    """What the pixels say: equal or nearly."""

    @classmethod
    def of(cls, members: Sequence[Member], near: Iterable[tuple[Image, Image]]) -> "_Ties":
        alike: dict[Image, list[str]] = defaultdict(list)
        for first, second in near:
            tie = f"near {sorted((first, second))}"
            alike[first].append(tie)
            alike[second].append(tie)
        return cls(
            members=tuple(members),
            declared={
                first.image: tuple(
                    tie
                    for patient, group_key in ((first.patient, first.group_key), *first.others)
                    for tie in (f"patient {patient}", f"group {group_key}")
                )
                for first in members
            },
            seen={first.image: (f"pixels {first.pixel_sha256}", *alike[first.image]) for first in members},
        )

    def all_of(self, image: Image) -> tuple[str, ...]:
        return self.declared[image] + self.seen[image]

    def bundles(self, images: Sequence[Image], sided: Mapping[str, Split]) -> list[tuple[Image, ...]]:
        """Cut the newcomers into those that stand or fall together, smallest image first."""
        top = merge_groups(
            (repr(image), tie)
            for image in images
            for tie in (f"alone {image}", *(tie_of for tie_of in self.declared[image] if tie_of not in sided))
        )
        together: dict[str, list[Image]] = defaultdict(list)
        for image in images:
            together[top[repr(image)]].append(image)
        return sorted(tuple(images_of) for images_of in together.values())


class _Board:
    """Which side each tie is on, as image after image is placed."""

    def __init__(self, ties: _Ties, facts: Sequence[Placement]) -> None:
        self.ties = ties
        self.side_of_tie: dict[str, Split] = {}
        for fact in facts:
            self.side_of_tie.setdefault(f"patient {fact.patient}", fact.split)
            self.side_of_tie.setdefault(f"group {fact.group_key}", fact.split)
        self.sides: dict[Image, Split] = {}
        self.withheld: dict[Image, set[Split]] = {}
        """With the side that it had, if any."""
        self.untouched: list[Image] = []
        """Newcomers that nothing ties to a side."""

    def settle(self, bundle: tuple[Image, ...], sides: set[Split]) -> None:
        """Place the images on the one side that they touch, or withhold them."""
        touched = sides | self._touched(bundle)
        if len(touched) > 1:
            self.withheld |= dict.fromkeys(bundle, sides)
            return
        (side,) = touched
        for image in bundle:
            self.put(image, side)

    def put(self, image: Image, side: Split) -> None:
        self.sides[image] = side
        self.side_of_tie |= dict.fromkeys(self.ties.all_of(image), side)

    def grow(self, bundles: list[tuple[Image, ...]]) -> None:
        """Settle what touches a side, then what touches those, until nothing more does."""
        while True:
            waiting = []
            for bundle in bundles:
                if self._touched(bundle):
                    self.settle(bundle, set())
                else:
                    waiting.append(bundle)
            if len(waiting) == len(bundles):
                break
            bundles = waiting
        self.untouched = [image for bundle in bundles for image in bundle]

    def left_out(self) -> tuple[Withheld, ...]:
        """Return the withheld images, and what they would join now that everything else is placed."""
        together = merge_groups(
            (repr(image), tie) for image in self.withheld for tie in self.ties.declared[image]
        )
        touched: dict[str, set[Split]] = defaultdict(set)
        for image, sides in self.withheld.items():
            touched[together[repr(image)]] |= sides | self._touched((image,))
        return tuple(
            Withheld(
                image=image,
                sides=tuple(side for side in SPLITS if side in touched[together[repr(image)]]),
            )
            for image in sorted(self.withheld)
        )

    def _touched(self, bundle: tuple[Image, ...]) -> set[Split]:
        side_of = self.side_of_tie
        return {side_of[tie] for image in bundle for tie in self.ties.all_of(image) if tie in side_of}
