"""Pictures of an evaluation."""

import io

import numpy as np
from PIL import Image

from tests.train.metrics.samples import COUNT, NAMES, sample
from train.metrics import plots, report


def test_four_pictures_are_drawn_and_differ(built: report.Report) -> None:
    drawn = plots.figures(built, NAMES, "a title")
    assert set(drawn) == {"confusion.png", "reliability.png", "roc.png", "abstention.png"}
    assert len(set(drawn.values())) == 4
    for blob in drawn.values():
        grey = np.asarray(Image.open(io.BytesIO(blob)).convert("L"))
        assert grey.shape == (770, 880)
        assert grey.std() > 10, "something is drawn"


def test_a_split_without_findings_can_be_drawn_too() -> None:
    assert len(plots.figures(sample(np.zeros(COUNT, int)), NAMES, "a title")) == 4
