"""Duplicates, contradictions, groups and the name of a version, on rows made by hand."""

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from data.dataset.near_duplicates import fingerprint
from data.dataset.rows import Candidate, assemble, counts, row_hash, version_of

KEY = bytes(range(32))
CLASSES = ("normal", "covid19")
ONE = Candidate(
    source="a",
    sha256="1",
    label="normal",
    patient="p1",
    group_key="g1",
    sex="F",
    age=46.0,
    view="PA",
    site=None,
    pixel_sha256="x1",
)
CANDIDATES = st.builds(
    replace,
    st.just(ONE),
    source=st.sampled_from("ab"),
    sha256=st.text("0123456789abcdef", min_size=8, max_size=8),
    label=st.sampled_from(CLASSES),
    patient=st.sampled_from(["p1", "p2", "p3", "p4"]),
    group_key=st.sampled_from(["g1", "g2", "g3", "g4"]),
    pixel_sha256=st.sampled_from(["x1", "x2", "x3", "x4", "x5", "x6"]),
)
MANY = st.lists(CANDIDATES, unique_by=lambda one: (one.source, one.sha256))


def test_of_equal_samples_the_first_by_source_stays() -> None:
    made = assemble([replace(ONE, source="b"), ONE], CLASSES, key=KEY)
    assert [row.source for row in made.rows] == ["a"]
    assert (made.duplicates, made.conflicting) == (1, ())


def test_the_same_pixels_with_two_labels_are_both_left_out() -> None:
    other = replace(ONE, sha256="2", label="covid19")
    made = assemble([ONE, other], CLASSES, key=KEY)
    assert (made.rows, made.duplicates) == ((), 0)
    assert set(made.conflicting) == {ONE, other}


def test_a_duplicate_ties_the_groups_of_both_patients_together() -> None:
    twin = replace(ONE, sha256="2", patient="p2", group_key="g2")
    more = replace(twin, sha256="3", pixel_sha256="x3")
    made = assemble([ONE, twin, more], CLASSES, key=KEY)
    assert {row.group_key for row in made.rows} == {"g1"}


def test_copies_tie_groups_together_and_are_both_kept() -> None:
    picture_HW = np.random.default_rng(0).integers(0, 255, (12, 12), np.uint8).repeat(8, 0).repeat(8, 1)
    copy = replace(ONE, sha256="2", patient="p2", group_key="g2", pixel_sha256="x2")
    stranger = replace(ONE, sha256="3", patient="p3", group_key="g3", pixel_sha256="x3")
    seen = [
        replace(one, fingerprint=fingerprint(pixels_HW))
        for one, pixels_HW in [(ONE, picture_HW), (copy, picture_HW // 2 + 9), (stranger, picture_HW[::-1])]
    ]
    made = assemble(seen, CLASSES, key=KEY)
    assert {row.sha256: row.group_key for row in made.rows} == {"1": "g1", "2": "g1", "3": "g3"}
    assert (made.near_duplicates, made.duplicates) == (1, 0)
    assert {one.fact for one in made.placements} == {
        (one.source, one.sha256, one.patient, one.group_key, row.split)
        for one in seen
        for row in made.rows
        if row.sha256 == one.sha256
    }


def test_what_is_known_is_not_decided_again_and_a_withheld_image_is_no_row() -> None:
    other = replace(ONE, sha256="2", patient="p2", group_key="g2", pixel_sha256="x2")
    placed = assemble([ONE, other], CLASSES, key=KEY).placements
    before = [replace(one, split="train" if one.sha256 == "1" else "test", decided=1) for one in placed]
    tying = replace(other, sha256="3", patient="p3", group_key="g1")
    made = assemble([ONE, other, tying], CLASSES, key=KEY, before=before)
    assert {row.sha256: row.split for row in made.rows} == {"1": "train", "2": "test"}
    assert [one.sha256 for one in made.withheld] == ["3"]
    assert (made.placements, made.duplicates) == ((), 0)


@given(MANY)
def test_every_image_is_a_row_a_duplicate_or_a_contradiction(candidates: list[Candidate]) -> None:
    made = assemble(candidates, CLASSES, key=KEY)
    assert len(made.rows) + made.duplicates + len(made.conflicting) == len(candidates)


@given(MANY)
def test_no_patient_and_no_pixels_are_on_two_sides(candidates: list[Candidate]) -> None:
    side = {(row.source, row.sha256): row.split for row in assemble(candidates, CLASSES, key=KEY).rows}
    for tie in ("patient", "group_key", "pixel_sha256"):
        sides: dict[str, set[str]] = {}
        for one in candidates:
            if (one.source, one.sha256) in side:
                sides.setdefault(getattr(one, tie), set()).add(side[one.source, one.sha256])
        assert all(len(several) == 1 for several in sides.values())


@given(MANY, st.randoms(use_true_random=False))
def test_any_order_gives_the_same_rows_and_version(candidates: list[Candidate], random) -> None:  # type: ignore[no-untyped-def]
    shuffled = random.sample(candidates, len(candidates))
    one, other = (assemble(some, CLASSES, key=KEY) for some in (candidates, shuffled))
    assert one.rows == other.rows
    assert version_of(one.rows, {"a": 1}) == version_of(reversed(other.rows), {"a": 1})


def test_the_version_follows_every_column_and_setting() -> None:
    row = assemble([ONE], CLASSES, key=KEY).rows[0]
    changed = [
        replace(row, **{name: value})
        for name, value in {
            "sample_hash": "y",
            "label": "covid19",
            "label_index": 1,
            "group_key": "g9",
            "split": "test" if row.split != "test" else "train",
            "source": "z",
            "sha256": "9",
            "sex": None,
            "age": None,
            "view": None,
            "site": "north",
        }.items()
    ]
    names = {version_of([one], {"side": 96}) for one in [row, *changed]} | {version_of([row], {"side": 128})}
    assert len(names) == len(changed) + 2
    assert all(len(name) == 16 and int(name, 16) >= 0 for name in names)


@given(MANY, st.data())
def test_rows_that_are_only_hashes_any_more_leave_the_name_as_it_was(
    candidates: list[Candidate], data: st.DataObject
) -> None:
    rows = assemble(candidates, CLASSES, key=KEY).rows
    gone = [row for row in rows if data.draw(st.booleans())]
    left = [row for row in rows if row not in gone]
    assert version_of(left, {"side": 96}, map(row_hash, gone)) == version_of(rows, {"side": 96})
    if gone:
        assert version_of(left, {"side": 96}) != version_of(rows, {"side": 96})


def test_counts_name_every_split_and_class() -> None:
    table = counts(assemble([ONE], CLASSES, key=KEY).rows, CLASSES)
    assert {split: sum(by_class.values()) for split, by_class in table.items()}.keys() == {
        "train",
        "validation",
        "test",
    }
    assert all(set(by_class) == set(CLASSES) for by_class in table.values())
    assert sum(sum(by_class.values()) for by_class in table.values()) == 1
