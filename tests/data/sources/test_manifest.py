"""What `data.sources.manifest` accepts, and the one line with which it refuses the rest."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from data.sources.manifest import FILE_NAME, ManifestError, read

HEADER = "path,label,source,patient_id,sex,age,view,license,sha256"
ROW = "a.png,normal,clinic,p1,F,46,PA,CC0-1.0,"


def write(folder: Path, *lines: str) -> Path:
    (folder / FILE_NAME).write_text("\n".join(lines) + "\n")
    return folder


def refusal(folder: Path) -> str:
    with pytest.raises(ManifestError) as caught:
        read(folder)
    message = str(caught.value)
    assert "\n" not in message
    return message


@contextmanager
def as_nobody() -> Iterator[None]:
    """Mode bits do not bind root: be somebody else for a moment."""
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)


def test_a_row_is_read_with_empty_values_unknown(tmp_path: Path) -> None:
    row = read(write(tmp_path, HEADER, "x/a.png,bone_no_fracture,clinic,,,,,,")).rows[0]
    assert (row.label, row.source_label, row.line) == ("bone_normal", "bone_no_fracture", 2)
    assert row.file == tmp_path / "x" / "a.png"
    unknown = (row.patient_id, row.sex, row.age_years, row.view, row.license, row.sha256, row.group_id)
    assert unknown == (None,) * 7


def test_further_columns_are_kept_where_filled(tmp_path: Path) -> None:
    row = read(write(tmp_path, f"{HEADER},group_id,site,note", f"{ROW},g1,north,")).rows[0]
    assert (row.group_id, row.further) == ("g1", {"site": "north"})


@pytest.mark.parametrize(
    ("text", "years", "span"),
    [
        ("46", 46.0, None),
        ("0.5", 0.5, None),
        ("061Y", 61.0, None),
        ("006M", 0.5, None),
        ("1-5y (paediatric cohort)", None, (1, 5)),
        ("85+", None, (85, None)),
        ("unknown", None, None),
    ],
)
def test_an_age_is_years_or_a_range_and_never_a_guess(
    tmp_path: Path, text: str, years: float | None, span: tuple[int, int | None] | None
) -> None:
    row = read(write(tmp_path, HEADER, f"a.png,normal,clinic,p1,male,{text},,,")).rows[0]
    assert (row.sex, row.age_years, row.age_range_years) == ("M", years, span)


def test_a_byte_order_mark_and_blank_lines_are_no_problem(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(f"\ufeff{HEADER}\r\n\r\n{ROW}\r\n".encode())
    assert read(tmp_path).rows[0].line == 3


def test_a_missing_folder_and_a_missing_manifest_are_told_apart(tmp_path: Path) -> None:
    assert f"no folder {tmp_path / 'nowhere'}" in refusal(tmp_path / "nowhere")
    assert f"no manifest.csv in {tmp_path}" in refusal(tmp_path)


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    assert "is" in refusal(tmp_path / "file")


def test_a_folder_without_read_permission_names_the_remedy(tmp_path: Path) -> None:
    folder = tmp_path / "closed"
    folder.mkdir()
    write(folder, HEADER, ROW)
    folder.chmod(0)
    try:
        with as_nobody():
            assert "chmod" in refusal(folder)
    finally:
        folder.chmod(0o700)


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (HEADER.encode() + b"\n", "no rows"),
        (HEADER.encode() + b"\n\xff\xfe,normal\n", "line 2 is not UTF-8"),
        (HEADER.removesuffix(",sha256").encode() + b"\n", "lacks the column sha256"),
        (f"{HEADER},sex\n{ROW},F\n".encode(), "names 'sex' twice"),
        (f'{HEADER}\na.png,"normal\n'.encode(), "is not CSV"),
    ],
)
def test_a_file_that_is_no_table_is_refused(tmp_path: Path, content: bytes, part: str) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)
    message = refusal(tmp_path)
    assert part in message
    assert str(tmp_path / FILE_NAME) in message


@pytest.mark.parametrize(
    ("row", "part"),
    [
        ("a.png,pneumonia,clinic,,,,,,", "line 3: unknown label 'pneumonia'"),
        ("b.png,,clinic,,,,,,", "line 3: no label"),
        ("b.png,normal,,,,,,,", "line 3: no source"),
        (",normal,clinic,,,,,,", "line 3: no path"),
        ("/etc/passwd,normal,clinic,,,,,,", "must be relative"),
        ("x/../../b.png,normal,clinic,,,,,,", "stay below its folder"),
        ("out/b.png,normal,clinic,,,,,,", "leads out of the folder"),
        ("./a.png,normal,clinic,,,,,,", "line 3: duplicate of line 2"),
        ("b.png,normal,clinic,,X,,,,", "sex cannot be read"),
        ("b.png,normal,clinic,,,old,,,", "age cannot be read"),
        ("b.png,normal,clinic,,,200,,,", "age cannot be read"),
        ("b.png,normal,clinic,,,5-1,,,", "age cannot be read"),
        ("b.png,normal,clinic,,,05-12-1980,,,", "age cannot be read"),
        ("b.png,normal,clinic,,,,,,abc", "sha256 is not 64"),
        ("b.png,normal,clinic,,", "5 values under 9 columns"),
    ],
)
def test_a_bad_row_is_named_by_its_line(tmp_path: Path, row: str, part: str) -> None:
    (tmp_path / "out").symlink_to("/tmp")
    assert part in refusal(write(tmp_path, HEADER, ROW, row))


def test_an_unknown_label_brings_the_known_ones_and_the_file_to_change(tmp_path: Path) -> None:
    message = refusal(write(tmp_path, HEADER, "a.png,flu,clinic,,,,,,"))
    assert "bacterial_pneumonia" in message
    assert "data/taxonomy.yaml" in message


def test_the_same_content_with_two_labels_is_refused_and_with_one_is_not(tmp_path: Path) -> None:
    digest = "0" * 64
    first, other = f"a.png,normal,clinic,,,,,,{digest}", f"b.png,covid19,clinic,,,,,,{digest}"
    assert "same image as line 2 with another label" in refusal(write(tmp_path, HEADER, first, other))
    assert len(read(write(tmp_path, HEADER, first, other.replace("covid19", "normal"))).rows) == 2


def test_the_first_five_problems_of_the_whole_file_are_shown(tmp_path: Path) -> None:
    message = refusal(write(tmp_path, HEADER, *(f"{n}.png,flu,clinic,,,,,," for n in range(9)), ROW))
    assert message.count("unknown label") == 5
    assert "line 6:" in message
    assert "and 4 more" in message


def test_nothing_of_the_patient_is_ever_in_a_refusal(tmp_path: Path) -> None:
    message = refusal(write(tmp_path, HEADER, "../jane.png,flu,clinic,Jane Doe,Jane,05-12-1980,,,Jane"))
    assert message.count("line 2:") == 5
    assert "jane" not in message.lower()
    assert "1980" not in message
