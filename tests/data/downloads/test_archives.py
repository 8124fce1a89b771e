"""Zip files are unpacked whole or not at all; a harmful one leaves nothing behind."""

import random
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from data.downloads.archives import ArchiveError, Limits, unpack, with_splits

ROOMY = Limits(free_bytes=0)
NOISE = random.Random(0).randbytes(5000)


def packed(
    path: Path, *members: tuple[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_DEFLATED
) -> Path:
    with zipfile.ZipFile(path, "w", method) as package:
        for name, blob in members:
            package.writestr(name, blob)
    return path


def with_mode(name: str, mode: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info


def refusal(archive: Path, to: Path, limits: Limits = ROOMY) -> str:
    before = {one.name for one in to.parent.iterdir()}
    with pytest.raises(ArchiveError) as caught:
        unpack(archive, to, limits=limits)
    message = str(caught.value)
    assert str(archive) in message
    assert "\n" not in message
    assert {one.name for one in to.parent.iterdir()} == before
    return message


def test_an_archive_is_unpacked_under_its_own_folders_for_its_owner_only(tmp_path: Path) -> None:
    told: list[tuple[int, int, str]] = []
    archive = packed(tmp_path / "a.zip", ("train/x.png", NOISE), ("train/", b""), ("empty/", b""))
    made = unpack(archive, tmp_path / "to", limits=ROOMY, progress=lambda *step: told.append(step))
    assert (made / "train/x.png").read_bytes() == NOISE
    assert stat.S_IMODE((made / "train/x.png").stat().st_mode) == 0o600
    assert told[-1] == (0, 0, "megabytes of a.zip unpacked")


@pytest.mark.parametrize(
    ("member", "part"),
    [
        ("../out.png", "leads out"),
        ("a/../../out.png", "leads out"),
        ("/etc/out.png", "leads out"),
        ("a\\..\\out.png", "leads out"),
        ("C:/out.png", "leads out"),
        (with_mode("link", stat.S_IFLNK | 0o777), "a link or a device"),
        (with_mode("pipe", stat.S_IFIFO | 0o666), "a link or a device"),
        ("a\nb.png", "no usable name"),
        (f"{'x' * 300}.png", "no usable name"),
    ],
)
def test_an_entry_that_could_do_harm_is_refused(
    tmp_path: Path, member: str | zipfile.ZipInfo, part: str
) -> None:
    archive = packed(tmp_path / "a.zip", ("good.png", NOISE), (member, b"/etc/passwd"))
    assert part in refusal(archive, tmp_path / "to")
    assert not (tmp_path / "out.png").exists()


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_comes_twice_is_refused(tmp_path: Path) -> None:
    assert "listed twice" in refusal(packed(tmp_path / "a.zip", ("x", NOISE), ("x", NOISE)), tmp_path / "to")


def test_an_encrypted_entry_is_refused(tmp_path: Path) -> None:
    archive = packed(tmp_path / "a.zip", ("x.png", NOISE))
    blob = bytearray(archive.read_bytes())
    for magic, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        blob[blob.index(magic) + offset] |= 1
    archive.write_bytes(blob)
    assert "encrypted" in refusal(archive, tmp_path / "to")


def test_a_bomb_is_known_by_its_ratio_and_a_large_file_by_its_size(tmp_path: Path) -> None:
    bomb = packed(tmp_path / "bomb.zip", ("zeros", bytes(10_000_000)))
    assert "no set of X-rays does" in refusal(bomb, tmp_path / "to")
    assert "is the most" in refusal(bomb, tmp_path / "to", Limits(ratio=1e6, file_bytes=1000, free_bytes=0))
    many = packed(tmp_path / "many.zip", *((f"{n}", b"x") for n in range(20)))
    assert "lists 20 files" in refusal(many, tmp_path / "to", Limits(files=10, free_bytes=0))


def test_what_does_not_fit_on_the_disk_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    archive = packed(tmp_path / "a.zip", ("x.png", NOISE))
    assert "MB free" in refusal(archive, tmp_path / "to", Limits(free_bytes=2**60))


def test_an_entry_that_lies_about_its_size_is_noticed_while_it_is_unpacked(tmp_path: Path) -> None:
    archive = packed(tmp_path / "a.zip", ("x.png", NOISE), method=zipfile.ZIP_STORED)
    whole = archive.read_bytes()
    blob = bytearray(whole)
    start = blob.index(b"PK\x01\x02")
    blob[start + 24 : start + 28] = (100).to_bytes(4, "little")
    archive.write_bytes(blob)
    assert "damaged" in refusal(archive, tmp_path / "to")
    archive.write_bytes(whole.replace(NOISE[:50], bytes(50)))
    assert "damaged" in refusal(archive, tmp_path / "to")


@pytest.mark.parametrize("cut", [lambda blob: blob[:-30], lambda blob: b"hello", lambda blob: b""])
def test_a_damaged_archive_is_one_line(tmp_path: Path, cut: Callable[[bytes], bytes]) -> None:
    archive = packed(tmp_path / "a.zip", ("x.png", NOISE))
    archive.write_bytes(cut(archive.read_bytes()))
    assert "fetch it again" in refusal(archive, tmp_path / "to")


def test_a_missing_archive_and_a_file_where_a_folder_should_be_are_one_line(tmp_path: Path) -> None:
    assert "No such file" in refusal(tmp_path / "none.zip", tmp_path / "to")
    archive = packed(tmp_path / "a.zip", ("x", NOISE), ("x/y", NOISE))
    assert "a.zip" in refusal(archive, tmp_path / "to")


def test_zipped_splits_become_folders_beside_the_small_files(tmp_path: Path) -> None:
    folder, scratch = tmp_path / "set", tmp_path / "scratch"
    folder.mkdir(), scratch.mkdir()
    packed(folder / "train.zip", ("train/normal/x.png", NOISE), ("__MACOSX/._x", b""))
    packed(folder / "Test.zip", ("normal/y.png", NOISE))
    packed(folder / "other.zip", ("z", NOISE))
    (folder / "manifest.csv").write_text("path\n")
    copy = with_splits(folder, scratch)
    assert sorted(one.relative_to(copy).as_posix() for one in copy.rglob("*") if one.is_file()) == [
        "Test/normal/y.png",
        "manifest.csv",
        "other.zip",
        "train/normal/x.png",
    ]
    assert with_splits(copy, scratch) == copy
    assert with_splits(tmp_path / "nowhere", scratch) == tmp_path / "nowhere"


def test_an_interrupted_unpacking_leaves_nothing(tmp_path: Path) -> None:
    archive = packed(tmp_path / "a.zip", ("x.png", NOISE), ("y.png", NOISE))

    def cut(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        unpack(archive, tmp_path / "to", limits=ROOMY, progress=cut)
    assert [one.name for one in tmp_path.iterdir()] == ["a.zip"]
