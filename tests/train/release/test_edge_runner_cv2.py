import cv2
import numpy as np
import pytest

from data.synthetic.generator import SyntheticConfig, draw, subjects
from train.release.edge_runner_cv2 import cv2 as ours

KERNEL = np.ones((9, 9), np.uint8)


def planes() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = ((64, 64), (63, 64), (64, 91), (101, 57), (33, 200), (9, 9), (1, 40), (40, 1), (5, 7))
    noise = [rng.integers(0, 256, shape, dtype=np.uint8) for shape in shapes]
    smooth = [cv2.GaussianBlur(one, (7, 7), 3) for one in noise]
    return noise + smooth


@pytest.mark.parametrize("operation", [cv2.MORPH_TOPHAT, cv2.MORPH_BLACKHAT])
def test_hats_are_opencvs(operation: int) -> None:
    for one_HW in planes():
        assert np.array_equal(
            ours.morphologyEx(one_HW, operation, KERNEL), cv2.morphologyEx(one_HW, operation, KERNEL)
        )


def test_halving_is_opencvs_at_even_sides() -> None:
    for one_HW in planes():
        even_HW = np.ascontiguousarray(one_HW[: one_HW.shape[0] // 2 * 2, : one_HW.shape[1] // 2 * 2])
        if even_HW.size:
            size = (even_HW.shape[1] // 2, even_HW.shape[0] // 2)
            theirs = cv2.resize(even_HW, size, interpolation=cv2.INTER_AREA)
            assert np.array_equal(ours.resize(even_HW, size, ours.INTER_AREA), theirs)


def test_halving_at_odd_sides_differs_by_one_level_in_a_thousandth_at_most() -> None:
    different, all_pixels = 0, 0
    rng = np.random.default_rng(1)
    for shape in ((401, 511), (300, 333), (255, 256), (777, 401), (65, 63)):
        one_HW = rng.integers(0, 256, shape, dtype=np.uint8)
        size = (shape[1] // 2, shape[0] // 2)
        gap_HW = np.abs(
            ours.resize(one_HW, size, ours.INTER_AREA).astype(int)
            - cv2.resize(one_HW, size, interpolation=cv2.INTER_AREA)
        )
        assert gap_HW.max() <= 1
        different, all_pixels = different + int((gap_HW > 0).sum()), all_pixels + gap_HW.size
    assert different <= all_pixels / 1000


@pytest.mark.parametrize("share", [0.0, 0.05, 0.3, 0.6, 1.0])
def test_pieces_are_opencvs(share: float) -> None:
    rng = np.random.default_rng(2)
    for shape in ((1, 1), (1, 50), (50, 1), (40, 60), (121, 87), (300, 200)):
        mask_HW = (rng.random(shape) < share).astype(np.uint8)
        count, labels_HW = ours.connectedComponents(mask_HW, connectivity=8, ltype=ours.CV_32S)
        theirs, theirs_HW = cv2.connectedComponents(mask_HW, connectivity=8, ltype=cv2.CV_32S)
        assert count == theirs
        pairs = np.unique(np.stack([labels_HW.ravel(), theirs_HW.ravel()]), axis=1)
        assert pairs.shape[1] == len(set(pairs[0])) == len(set(pairs[1]))  # one of ours for each of theirs
        assert np.array_equal(labels_HW == 0, mask_HW == 0)


def test_a_spiral_is_one_piece() -> None:
    mask_HW = np.zeros((61, 61), np.uint8)
    for ring in range(0, 30, 2):
        mask_HW[ring, ring : 61 - ring] = mask_HW[60 - ring, ring : 61 - ring] = 1
        mask_HW[ring : 61 - ring, ring] = mask_HW[ring : 61 - ring, 60 - ring] = 1
        mask_HW[ring + 1, ring] = 0
        mask_HW[ring + 2, ring + 1] = 1
    count, _ = ours.connectedComponents(mask_HW, connectivity=8, ltype=ours.CV_32S)
    assert count == cv2.connectedComponents(mask_HW, connectivity=8)[0]


def test_thresholds_are_opencvs() -> None:
    for one_HW in planes():
        theirs = cv2.threshold(one_HW, 31, 1, cv2.THRESH_BINARY)
        assert np.array_equal(ours.threshold(one_HW, 31, 1, ours.THRESH_BINARY)[1], theirs[1])


def test_the_numbers_of_the_constants_are_opencvs() -> None:
    names = [name for name in vars(ours) if name.isupper()]
    assert len(names) == 6
    assert {name: getattr(ours, name) for name in names} == {name: getattr(cv2, name) for name in names}


def test_the_boxes_of_text_are_those_that_opencv_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    from data.imaging import burned_in_text, strokes
    from data.imaging.preprocess import PngImageFile

    config = SyntheticConfig(images=20, side=300)
    found = 0
    for subject, _ in zip(subjects(config), range(20), strict=False):
        blob, _, _ = draw(config, subject, 1, np.random.default_rng(subject.seed))
        if not blob.startswith(b"\x89PNG"):
            continue
        shown_HW = np.asarray(PngImageFile(io.BytesIO(blob)).convert("L")).copy()
        cv2.putText(shown_HW, "PAT 4711 L", (10, 40), cv2.FONT_HERSHEY_SIMPLEX, 0.8, 255, 2)
        theirs = burned_in_text.find_text(shown_HW)
        with monkeypatch.context() as patch:
            patch.setattr(strokes, "cv2", ours)
            assert burned_in_text.find_text(shown_HW) == theirs
        found += len(theirs)
    assert found >= 5
