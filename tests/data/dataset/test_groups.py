"""Nobody changes sides, nothing that belongs together is cut, and who cannot have both is withheld."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from data.dataset.groups import Image, Member, Placement, Placing, place
from data.dataset.split import SPLITS, Split, split_of

KEY = bytes(range(32))


def member(name: str, patient: str = "", group: str = "", pixels: str = "") -> Member:
    return Member(
        source="clinic",
        sha256=name,
        patient=patient or f"patient of {name}",
        group_key=group or patient or f"group of {name}",
        pixel_sha256=pixels or f"pixels of {name}",
    )


def group_on(side: Split, nth: int = 0) -> str:
    """A group key that falls on this side by itself."""
    return [name for name in (f"g{n}" for n in range(200)) if split_of(name, KEY) == side][nth]


def remembered(placing: Placing, members: Sequence[Member], decided: int = 1) -> list[Placement]:
    return [
        Placement(
            source=one.image[0],
            sha256=one.image[1],
            patient=one.patient,
            group_key=one.group_key,
            split=placing.sides[one.image],
            decided=decided,
        )
        for one in members
        if one.image in placing.sides
    ]


IN_TRAINING = member("a", patient=group_on("train"))
IN_TEST = member("b", patient=group_on("test"))
FIRST = place([IN_TRAINING, IN_TEST], key=KEY)
BEFORE = remembered(FIRST, [IN_TRAINING, IN_TEST])


def test_two_that_come_together_and_are_alike_make_one_group() -> None:
    placing = place([IN_TRAINING, IN_TEST], near=[(IN_TEST.image, IN_TRAINING.image)], key=KEY)
    assert len(set(placing.sides.values())) == 1
    assert set(placing.names.values()) == {min(IN_TRAINING.group_key, IN_TEST.group_key)}


def test_a_newcomer_with_a_smaller_key_moves_nobody() -> None:
    newcomer = member("c", patient="!", pixels=IN_TEST.pixel_sha256)
    assert IN_TEST.group_key > "!"
    assert split_of("!", KEY) != "test"
    placing = place([IN_TRAINING, IN_TEST, newcomer], before=BEFORE, key=KEY)
    assert placing.sides == {**FIRST.sides, newcomer.image: "test"}
    assert placing.names[IN_TEST.image] == "!"


def test_a_newcomer_that_would_join_training_and_test_is_withheld() -> None:
    newcomer = member("c", pixels=IN_TEST.pixel_sha256)
    near = [(newcomer.image, IN_TRAINING.image)]
    placing = place([newcomer, IN_TRAINING, IN_TEST], near=near, before=BEFORE, key=KEY)
    assert placing.sides == FIRST.sides
    assert [(one.image, one.sides) for one in placing.withheld] == [(newcomer.image, ("train", "test"))]


def test_without_a_version_before_the_same_three_are_one_group() -> None:
    newcomer = member("c", pixels=IN_TEST.pixel_sha256)
    near = [(newcomer.image, IN_TRAINING.image)]
    placing = place([newcomer, IN_TRAINING, IN_TEST], near=near, key=KEY)
    assert (len(set(placing.sides.values())), placing.withheld) == (1, ())


def test_a_new_patient_is_withheld_as_a_whole() -> None:
    one, other, third = (member(name, patient="new") for name in "cde")
    near = [(one.image, IN_TRAINING.image), (other.image, IN_TEST.image)]
    placing = place([IN_TRAINING, IN_TEST, one, other, third], near=near, before=BEFORE, key=KEY)
    assert {each.image for each in placing.withheld} == {one.image, other.image, third.image}


def test_of_a_known_patient_only_the_image_that_ties_is_withheld() -> None:
    fine, tying = (member(name, patient=IN_TRAINING.patient) for name in "cd")
    near = [(tying.image, IN_TEST.image)]
    placing = place([IN_TRAINING, IN_TEST, fine, tying], near=near, before=BEFORE, key=KEY)
    assert placing.sides == {**FIRST.sides, fine.image: "train"}
    assert [one.image for one in placing.withheld] == [tying.image]


def test_a_chain_of_newcomers_gives_up_one_link() -> None:
    chain = [member(name) for name in "cde"]
    images = [IN_TRAINING.image, *(one.image for one in chain), IN_TEST.image]
    near = list(pairwise(images))
    placing = place([IN_TRAINING, IN_TEST, *chain], near=near, before=BEFORE, key=KEY)
    assert len(placing.withheld) == 1
    assert placing.sides.items() >= FIRST.sides.items()


def test_a_patient_whose_first_image_is_gone_keeps_the_side() -> None:
    kept = [replace(one, split="validation") for one in BEFORE]
    later = member("z", patient=IN_TRAINING.patient)
    assert place([later], key=KEY).sides[later.image] == "train"
    assert place([later], before=kept, key=KEY).sides[later.image] == "validation"


def test_old_images_that_a_correction_ties_leave_training_first() -> None:
    near = [(IN_TRAINING.image, IN_TEST.image)]
    placing = place([IN_TRAINING, IN_TEST], near=near, before=BEFORE, key=KEY)
    assert placing.sides == {IN_TEST.image: "test"}
    assert [one.image for one in placing.withheld] == [IN_TRAINING.image]


def test_of_old_images_that_are_tied_later_the_one_decided_first_stays() -> None:
    near = [(IN_TRAINING.image, IN_TEST.image)]
    before = [replace(one, decided=1 if one.split == "train" else 2) for one in BEFORE]
    placing = place([IN_TRAINING, IN_TEST], near=near, before=before, key=KEY)
    assert placing.sides == {IN_TRAINING.image: "train"}


MEMBERS = st.lists(
    st.builds(
        member,
        st.text("0123456789", min_size=1, max_size=3),
        patient=st.sampled_from([f"p{n}" for n in range(12)]),
        group=st.sampled_from([f"g{n}" for n in range(14)]),
        pixels=st.sampled_from([f"x{n}" for n in range(20)]),
    ),
    unique_by=lambda one: one.image,
    max_size=25,
)


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Member], list[tuple[Image, Image]], list[list[Member]]]:
    """Images, near-duplicates among them, and versions that each hold some of them, not always more."""
    members = draw(MEMBERS)
    images = [one.image for one in members]
    pair = st.tuples(st.sampled_from(images), st.sampled_from(images)) if images else st.nothing()
    near = draw(st.lists(pair.filter(lambda two: two[0] != two[1]), max_size=8 if len(images) > 1 else 0))
    chosen = [
        draw(st.sets(st.sampled_from(images))) if images else set() for _ in range(draw(st.integers(1, 4)))
    ]
    return members, near, [[one for one in members if one.image in some] for some in [*chosen, set(images)]]


def _tied_on_two_sides(placing: Placing, members: list[Member], near: list[tuple[Image, Image]]) -> list[str]:
    found = []
    for tie in ("patient", "group_key", "pixel_sha256"):
        sides: dict[str, set[Split]] = {}
        for one in members:
            if one.image in placing.sides:
                sides.setdefault(getattr(one, tie), set()).add(placing.sides[one.image])
        found += [value for value, several in sides.items() if len(several) > 1]
    at = placing.sides
    return found + [
        f"{one} {other}" for one, other in near if at.get(one, at.get(other)) != at.get(other, at.get(one))
    ]


@settings(max_examples=300, deadline=None)
@given(histories())
def test_however_the_data_grows_nobody_moves_and_nothing_overlaps(history) -> None:  # type: ignore[no-untyped-def]
    _, near, versions = history
    before: list[Placement] = []
    side_of_patient: dict[str, Split] = {}
    for decided, inside in enumerate(versions):
        placing = place(inside, near=near, before=before, key=KEY)
        assert set(placing.sides) | {one.image for one in placing.withheld} == {one.image for one in inside}
        assert len(placing.sides) + len(placing.withheld) == len(inside)
        assert _tied_on_two_sides(placing, inside, near) == []
        for one in inside:
            if one.image in placing.sides:
                side = placing.sides[one.image]
                assert side_of_patient.setdefault(one.patient, side) == side
        before += remembered(placing, inside, decided)
    assert place(versions[0], key=KEY).withheld == ()


@settings(max_examples=200, deadline=None)
@given(histories(), st.randoms(use_true_random=False))
def test_again_later_or_in_any_order_gives_the_same(history, random) -> None:  # type: ignore[no-untyped-def]
    _, near, versions = history
    before: list[Placement] = []
    made: list[Placing] = []
    for decided, inside in enumerate(versions):
        made.append(place(inside, near=near, before=before, key=KEY))
        before += remembered(made[-1], inside, decided)
    for decided, (inside, placing) in enumerate(zip(versions, made, strict=True)):
        then = [one for one in before if one.decided <= decided]
        shuffled = [random.sample(some, len(some)) for some in (inside, near, then)]
        again = place(shuffled[0], near=shuffled[1], before=shuffled[2], key=KEY)
        assert again == placing


@given(st.sampled_from(SPLITS), st.integers(0, 9))
def test_a_group_of_its_own_goes_where_its_key_says(side: Split, nth: int) -> None:
    alone = member("a", patient=group_on(side, nth % 3))
    assert place([alone], key=KEY).sides == {alone.image: side}


def test_one_file_of_two_patients_keeps_all_images_of_both_on_one_side() -> None:
    own = [member("own of a", patient=group_on("train")), member("own of b", patient=group_on("test"))]
    owners = [(one.patient, one.group_key) for one in own]
    shared = replace(member("shared", patient=owners[0][0]), others=(owners[1],))
    apart = place([*own, replace(shared, others=())], key=KEY)
    assert len(set(apart.sides.values())) == 2
    together = place([*own, shared], key=KEY)
    assert len(set(together.sides.values())) == 1
    assert len(set(together.names.values())) == 1
