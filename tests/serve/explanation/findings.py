"""A finding, and a strategy that draws any finding."""

from hypothesis import strategies as st

from data.taxonomy import taxonomy
from serve.classifier.triage import TRIAGES
from serve.explanation.finding import Finding

NAMES = taxonomy().names


BACTERIAL = Finding(
    label="bacterial_pneumonia",
    confidence=0.87,
    abstained=False,
    prediction_set=("bacterial_pneumonia", "viral_pneumonia"),
    triage="urgent",
)


@st.composite
def any_finding(draw: st.DrawFn) -> Finding:
    order = draw(st.permutations(NAMES))
    return Finding(
        label=order[0],
        confidence=draw(st.floats(0, 1)),
        abstained=draw(st.booleans()),
        prediction_set=tuple(order[: draw(st.integers(1, len(NAMES)))]),
        triage=draw(st.sampled_from(TRIAGES)),
    )
