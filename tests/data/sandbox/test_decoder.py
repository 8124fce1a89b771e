"""`data.sandbox.decoder`: what a file can do to a decoder ends a child and nothing else; good files cost no new child.

Hostile decoders are written into a folder of the test's own and loaded by the child by their import path.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from data.imaging import preprocess
from data.imaging.masked_dicom import masked_stored
from data.imaging.preprocess import BadImageError, PixelConfig, UnknownTypeError
from data.sandbox import decoder as sandbox
from data.sandbox.decoder import Decoder, Limits, SandboxError
from tests.data.sandbox.hostile_files import QUICK, gone, png, reason
from tests.planted import plant

ROOT = Path(__file__).resolve().parents[3]
REAL = ROOT.parent / "shared" / "data" / "xrays" / "dicom"
CONFIG = PixelConfig(side=64)


def test_200_files_are_decoded_by_one_process_and_as_in_this_one(decoder: Decoder) -> None:
    before = decoder.pids()
    for seed in range(200):
        blob = png(seed % 7)
        if seed % 3:
            assert np.array_equal(decoder.to_pixels(blob, CONFIG), preprocess.to_pixels(blob, CONFIG))
        else:
            assert reason(lambda blob=blob: decoder.to_pixels(blob[:500], CONFIG)) == "truncated"
    assert decoder.pids() == before


def test_what_a_reviewer_has_waived_passes_in_a_child_too_and_nothing_else(decoder: Decoder) -> None:
    tiny, noise = png(side=20), png(side=160)
    assert reason(lambda: decoder.to_pixels(tiny, CONFIG)) == "too_small"
    released_HW = decoder.to_pixels(tiny, CONFIG, waived=("too_small",))
    assert np.array_equal(released_HW, preprocess.to_pixels(tiny, CONFIG, ("too_small",)))
    assert reason(lambda: decoder.to_pixels(noise, CONFIG, waived=("too_small",))) == "not_an_xray"
    passed_HW = decoder.to_pixels(noise, CONFIG, waived=["not_an_xray", "inverted"])
    assert np.array_equal(passed_HW, preprocess.to_pixels(noise, CONFIG))
    assert (
        reason(lambda: decoder.to_pixels(tiny[:200], CONFIG, waived=("too_small", "truncated")))
        == "truncated"
    )


def test_the_shown_image_and_its_kind_come_back(decoder: Decoder) -> None:
    ours, theirs = preprocess.decode(png()), decoder.decode(png())
    assert np.array_equal(ours.shown_HW, theirs.shown_HW)
    assert (theirs.kind, theirs.width, theirs.height) == (ours.kind, ours.width, ours.height)
    assert theirs.shown_HW.flags.writeable


@pytest.mark.skipif(not REAL.is_dir(), reason="the real X-rays are not here")
def test_real_dicom_files_of_every_encoding_give_the_same_pixels_in_a_child(decoder: Decoder) -> None:
    """A codec that loads a part of itself at its first file would fail there: nothing can be opened any more."""
    before, same = decoder.pids(), 0
    for path in sorted(REAL.glob("*.dcm")):
        blob = path.read_bytes()
        try:
            shown_HW = decoder.decode(blob).shown_HW
        except BadImageError as error:
            ended = error.reason
        else:
            ended = "decodes"
            same += np.array_equal(shown_HW, preprocess.decode(blob).shown_HW)
        expected = {
            "der_truncated": "truncated",
            "dx_no_pixel_data": "no_pixels",
            "nih_p2_wrong_modality": "not_an_xray",
        }
        assert ended == (expected | {"rsna_16d7f894_fake_mono1": "inverted"}).get(path.stem, "decodes")
    assert same == 16
    assert decoder.pids() == before


def test_the_stored_pixels_of_a_dicom_file_come_back_with_their_depth(decoder: Decoder) -> None:
    before, blob = decoder.pids(), plant(3).dicom
    ours_HW, theirs_HW = masked_stored(blob), decoder.stored(blob)
    assert theirs_HW.dtype == np.uint16
    assert int(theirs_HW.max()) > 255
    assert np.array_equal(ours_HW, theirs_HW)
    with pytest.raises(BadImageError) as refused:
        decoder.stored(blob[:900])
    assert refused.value.reason == "no_pixels"
    assert decoder.pids() == before


def test_a_refusal_keeps_its_type_and_message(decoder: Decoder) -> None:
    with pytest.raises(UnknownTypeError, match="11 bytes"):
        decoder.decode(b"hello there")


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        (b"loop", "too_slow"),
        (b"bomb", "too_much_memory"),
        (b"segfault", "crash"),
        (b"exit", "crash"),
        (b"kill", "crash"),
        (b"raise", "crash"),
    ],
)
def test_a_file_that_breaks_the_decoder_is_refused_and_the_next_one_decoded(
    hostile: Decoder, file: bytes, expected: str
) -> None:
    before = hostile.pids()
    with pytest.raises(BadImageError) as caught:
        hostile.decode(file)
    assert caught.value.reason == expected
    assert "DOE" not in str(caught.value)
    assert hostile.decode(png()).width == 80
    assert len(hostile.pids()) == len(before)
    assert hostile.pids() != before


def test_a_child_that_neither_answers_nor_computes_is_given_up(hostile: Decoder) -> None:
    assert reason(lambda: hostile.decode(b"sleep")) == "too_slow"


def test_what_an_earlier_file_left_behind_does_not_decide_about_a_later_one(hostile: Decoder) -> None:
    assert hostile.decode(b"once").width == 80
    assert hostile.decode(b"once").width == 80


def test_closing_ends_the_children_and_later_files_are_an_error_of_ours() -> None:
    with Decoder(children=2) as decoder:
        pids = decoder.pids()
        assert len(pids) == 2
    assert all(gone(pid, within_s=0.1) for pid in pids)
    for _ in range(4):
        with pytest.raises(SandboxError, match="closed"):
            decoder.decode(png())


def test_many_threads_share_the_children(hostile: Decoder, folder: Path) -> None:
    files = [png(seed) for seed in range(40)] + [b"segfault", b"loop"]
    with (
        Decoder(
            children=2, limits=QUICK, decoder="hostile_decoders:by_content", import_from=[folder]
        ) as decoder,
        ThreadPoolExecutor(6) as pool,
    ):

        def one(blob: bytes) -> str:
            try:
                return str(decoder.decode(blob).width)
            except BadImageError as error:
                return error.reason

        outcomes = list(pool.map(one, files))
        assert len(decoder.pids()) == 2
    assert outcomes == ["80"] * 40 + ["crash", "too_slow"]


def test_a_decoder_that_cannot_be_imported_is_an_error_of_ours() -> None:
    with pytest.raises(SandboxError, match="ModuleNotFoundError"):
        Decoder(decoder="no_such_module:decode")


@pytest.mark.parametrize("change", [{"cpu_s": 0}, {"memory_bytes": -1}, {"cpu_s_per_mb": -1}])
def test_impossible_limits_are_refused(change: dict[str, int]) -> None:
    with pytest.raises(ValueError):
        Limits(**change)


def test_a_pool_without_children_is_refused() -> None:
    with pytest.raises(ValueError):
        Decoder(children=0)


def test_all_threads_of_a_process_share_one_decoder() -> None:
    try:
        with ThreadPoolExecutor(4) as pool:
            decoders = set(pool.map(lambda _: sandbox.process_decoder(), range(4)))
        (decoder,) = decoders
        assert len(decoder.pids()) == 1
    finally:
        sandbox.process_decoder().close()
        sandbox._started.cache_clear()
