import json
from dataclasses import asdict, replace

import numpy as np
import pytest

from data.model_card import CardError, ModelCard
from serve.classifier.answer import Answer, Classified, InvalidOutputError
from serve.classifier.answer import answer as answer_of
from tests.cards import OUTLIERS, RAW, card

CARD = card(pixels={"side": 96}, calibration={"conformal_threshold": 0.25, "abstain_below": 0.4})
JUDGING = card(
    pixels={"side": 96},
    calibration={"conformal_threshold": 0.25, "abstain_below": 0.4},
    outliers=asdict(replace(OUTLIERS, threshold=5.0)),
)


def answer(probabilities_C: np.ndarray, card: ModelCard) -> Answer:
    return answer_of(Classified(probabilities_C=probabilities_C), card)


def probabilities(**by_class: float) -> np.ndarray:
    rest = (1 - sum(by_class.values())) / (len(CARD.classes) - len(by_class))
    return np.array([by_class.get(name, rest) for name in CARD.classes])


def test_a_clear_case_has_one_label_and_a_set_of_one() -> None:
    told = answer(probabilities(covid19=0.9), CARD)
    assert (told.label, told.confidence, told.abstained) == ("covid19", 0.9, False)
    assert told.prediction_set == ["covid19"]
    assert told.triage == "urgent"


def test_an_open_case_names_all_that_remains_possible_most_probable_first() -> None:
    told = answer(probabilities(viral_pneumonia=0.45, bacterial_pneumonia=0.4), CARD)
    assert told.prediction_set == ["viral_pneumonia", "bacterial_pneumonia"]
    assert not told.abstained


def test_a_weak_best_guess_abstains_and_the_set_is_never_empty() -> None:
    told = answer(probabilities(normal=0.2), CARD)
    assert told.abstained
    assert told.prediction_set == ["normal"]


@pytest.mark.parametrize(
    ("label", "strangeness", "concerns", "reason"),
    [
        (0.9, 5.0, (), None),
        (0.9, 5.1, (), "out_of_distribution"),
        (0.2, 4.0, (), "below_threshold"),
        (0.2, 5.1, (), "out_of_distribution"),
        (0.9, 4.0, ("blurred",), "quality"),
        (0.2, 5.1, ("blurred", "small"), "quality"),
    ],
)
def test_an_abstention_says_why_the_reason_nearest_to_the_image_first(
    label: float, strangeness: float, concerns: tuple[str, ...], reason: str | None
) -> None:
    said = Classified(probabilities_C=probabilities(normal=label), strangeness=strangeness)
    told = answer_of(said, JUDGING, concerns)
    assert (told.abstained, told.abstained_reason) == (reason is not None, reason)
    assert told.concerns == concerns
    assert told.triage == ("routine" if reason is None else "soon")


def test_a_card_of_before_abstains_for_no_strangeness_and_a_model_that_tells_none_for_none_either() -> None:
    assert CARD.outliers is None
    assert JUDGING.outliers == replace(OUTLIERS, threshold=5.0)
    strange = Classified(probabilities_C=probabilities(normal=0.9), strangeness=1e9)
    assert not answer_of(strange, CARD).abstained
    assert not answer(probabilities(normal=0.9), JUDGING).abstained


@pytest.mark.parametrize(
    "row", [np.full(10, np.nan), np.full(10, 0.2), np.full(9, 1 / 9), np.array([1.5, -0.5] + [0.0] * 8)]
)
def test_what_is_no_distribution_is_refused(row: np.ndarray) -> None:
    with pytest.raises(InvalidOutputError):
        answer(row, CARD)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"format": 2}, "format 1"),
        ({"preprocess_version": "0"}, "pixel transform '0'"),
        ({"calibration": {}}, "lacks or mistypes"),
        ({"pixels": {"sides": 1}}, "lacks or mistypes"),
        ({"outliers": {"false_alarms": 0.01}}, "lacks or mistypes"),
    ],
)
def test_a_card_that_this_code_cannot_serve_is_refused(change: dict[str, object], says: str) -> None:
    with pytest.raises(CardError, match=says):
        ModelCard.from_json(json.dumps(RAW | change))
