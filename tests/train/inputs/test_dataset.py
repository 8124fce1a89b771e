import numpy as np
import pytest

from data.imaging.preprocess import PREPROCESS_VERSION, PixelConfig
from train.inputs.dataset import Images, TrainDataError, TrainingData, check, class_weights

LABELS = np.array([0] * 6 + [1] * 3 + [3])


def test_without_balance_every_image_weighs_one() -> None:
    assert class_weights(LABELS, 4, 0.0).tolist() == [1.0, 1.0, 0.0, 1.0]


def test_with_full_balance_every_class_has_the_same_weight_in_all() -> None:
    weights = class_weights(LABELS, 4, 1.0)
    totals = weights * np.bincount(LABELS, minlength=4)
    assert totals[[0, 1, 3]] == pytest.approx([10 / 3] * 3)
    assert weights[LABELS].mean() == pytest.approx(1.0)


def test_an_empty_split_is_refused_by_name() -> None:
    some = Images(hashes=["a"], pixels_NHW=np.zeros((1, 32, 32), np.uint8), labels_N=np.zeros(1, np.int64))
    none = Images(hashes=[], pixels_NHW=np.zeros((0, 32, 32), np.uint8), labels_N=np.zeros(0, np.int64))
    with pytest.raises(TrainDataError, match="validation split has no image"):
        TrainingData(train=some, validation=none, classes=("a",), pixels=PixelConfig(side=32))


def test_pixels_of_another_preprocessing_are_refused() -> None:
    check({"version": "v", "settings": {"preprocess_version": PREPROCESS_VERSION}})
    with pytest.raises(TrainDataError, match=r"preprocessing 0\.9"):
        check({"version": "v", "settings": {"preprocess_version": "0.9"}})
