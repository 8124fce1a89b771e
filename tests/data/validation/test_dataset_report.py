"""The page of a version says everything once, escapes what comes from data, and can be read without seeing."""

import base64
import io
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from data.imaging.preprocess import PREPROCESS_VERSION
from data.validation import dataset_report
from data.validation.dataset_report import Page, Reject, render
from data.validation.report_tables import Table
from data.validation.shortcut_probes import Probe, Shortcuts

NASTY = "<script>alert('x')</script>"


def picture(alt: str) -> dataset_report.Stamp:
    pixels_HW = np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)
    return dataset_report._stamp(pixels_HW, 96, alt, "clinic, train")


@pytest.fixture
def page() -> Page:
    described = {
        "version": "0123456789abcdef",
        "created_at": "2026-01-01T00:00:00+00:00",
        "git_commit": "abc",
        "parents": ["fedcba9876543210"],
        "settings": {
            "pixels": {"side": 96},
            "preprocess_version": PREPROCESS_VERSION,
            "split": {"by": "keyed hash of the group", "shares": {"train": 0.7}, "seed": 0},
        },
        "classes": ["normal", "covid19"],
        "counts": {split: {"normal": 2, "covid19": 0} for split in ("train", "validation", "test")},
        "groups": {"train": 2, "validation": 2, "test": 2},
        "quarantined": {"truncated": 3, "would_join_two_sides": 1},
        "near_duplicates": 4,
        "withheld": [{"source": NASTY, "sha256": "f" * 64, "sides": ["train", "test"]}],
        "sources": {"clinic": 6},
        "licenses": {NASTY: 6},
        "synthetic": False,
    }
    probe = Probe(view="borders", target="label", accuracy=0.8, chance=0.5, images=6, classes=2)
    table = Table(
        title="Class by source by split",
        note="",
        heads=("train", "validation", "test"),
        rows=((f"normal · {NASTY}", (2, 2, 2)),),
    )
    reject = Reject(
        reason="truncated",
        stage="etl",
        number=3,
        detail=NASTY,
        stamps=(),
        without_stamp="no picture: the file was not decoded",
    )
    shown = replace(reject, reason="would_join_two_sides", stamps=(picture("left out"),), without_stamp="")
    return Page(
        described=described,
        made_at="2026-01-01 00:00 UTC",
        tables=(table, replace(table, title="Sex")),
        contact=(("normal", (picture("X-ray of class normal"),)), ("covid19", ())),
        rejects=(reject, shown),
        shortcuts=Shortcuts(
            probes=(probe,),
            not_evaluable={"source": "all images have the same one (clinic)"},
            class_by_source={"normal": {"clinic": 6}},
        ),
    )


class Reader(HTMLParser):
    """What a screen reader meets: tags with their attributes, balanced."""

    VOID = frozenset({"meta", "img", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    assert reader.open == []
    return reader


def test_the_page_is_one_balanced_file_that_loads_nothing(page: Page) -> None:
    tags = read(render(page)).tags
    assert not {tag for tag, _ in tags} & {"script", "link", "iframe", "object"}
    addresses = [value or "" for _, attrs in tags for name, value in attrs.items() if name in ("src", "href")]
    assert addresses
    assert all(one.startswith(("#", "data:image/jpeg;base64,")) for one in addresses)


def test_what_comes_from_data_is_escaped(page: Page) -> None:
    html = render(page)
    assert "<script" not in html
    assert html.count("&lt;script&gt;") >= 4


def test_every_picture_has_words_every_header_a_scope_and_every_link_a_target(page: Page) -> None:
    tags = read(render(page)).tags
    pictures = [attrs for tag, attrs in tags if tag == "img"]
    assert len(pictures) == 2
    assert all(attrs.get("alt") for attrs in pictures)
    assert all(attrs.get("scope") in ("row", "col") for tag, attrs in tags if tag == "th")
    ids = {attrs["id"] for _, attrs in tags if "id" in attrs}
    assert {attrs["href"] for tag, attrs in tags if tag == "a"} == {f"#{one}" for one in ids}
    assert ("html", {"lang": "en"}) in tags
    assert any(attrs.get("name") == "viewport" for tag, attrs in tags if tag == "meta")


def test_the_page_tells_what_was_left_out_what_was_probed_and_where_it_comes_from(page: Page) -> None:
    text = re.sub(r"<[^>]+>", " ", render(page))
    for said in (
        "would_join_two_sides",
        "no picture: the file was not decoded",
        "all images have the same one (clinic)",
        "80 %",
        "60 %",
        "fedcba9876543210",
        "commit",
        "None in this version",
        "no diagnosis",
    ):
        assert said in text


@pytest.mark.parametrize(
    "change",
    [
        lambda page: replace(page, rejects=()),
        lambda page: replace(page, described={**page.described, "quarantined": {}, "withheld": []}),
        lambda page: replace(page, described={**page.described, "parents": [], "synthetic": True}),
        lambda page: replace(page, shortcuts=replace(page.shortcuts, probes=())),
    ],
)
def test_a_page_with_less_on_it_is_whole_too(page: Page, change: Callable[[Page], Page]) -> None:
    assert render(change(page)) != render(page)
    read(render(change(page)))


def test_a_stamp_is_no_larger_than_it_says() -> None:
    blob = base64.b64decode(picture("a").uri.partition(",")[2])
    assert Image.open(io.BytesIO(blob)).size == (96, 96)
