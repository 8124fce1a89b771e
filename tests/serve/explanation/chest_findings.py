"""Findings that the tests of the checker and the normaliser judge texts by."""

from serve.explanation.finding import Finding

BACTERIAL = Finding(
    label="bacterial_pneumonia",
    confidence=0.87,
    abstained=False,
    prediction_set=("bacterial_pneumonia", "viral_pneumonia"),
    triage="urgent",
)


NORMAL = Finding(
    label="normal", confidence=0.93, abstained=False, prediction_set=("normal",), triage="routine"
)


BONE_NORMAL = Finding(
    label="bone_normal", confidence=0.81, abstained=False, prediction_set=("bone_normal",), triage="routine"
)


FRACTURE = Finding(
    label="bone_fracture",
    confidence=0.999,
    abstained=False,
    prediction_set=("bone_fracture",),
    triage="urgent",
)


UNSURE = Finding(
    label="tuberculosis",
    confidence=0.41,
    abstained=True,
    prediction_set=("tuberculosis", "lung_opacity"),
    triage="soon",
)
