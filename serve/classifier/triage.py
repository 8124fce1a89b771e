"""How soon a physician should look: calibrated probabilities → routine, soon or urgent.

The rule covers every class, not only the answer: a class makes the X-ray `urgent` from its `urgent_above` on, `soon`
from its `soon_above` on (both in `data/taxonomy.yaml`); the most pressing class decides. A 35 % tuberculosis behind a
60 % opacity is still seen soon. An abstained answer is at least `soon`: the image is not understood yet. Knows
neither Ray nor torch.
"""

from collections.abc import Mapping
from typing import Literal

from data.taxonomy import Class, taxonomy

Triage = Literal["routine", "soon", "urgent"]
TRIAGES: tuple[Triage, ...] = ("routine", "soon", "urgent")
"""From the least to the most pressing."""


def triage(probabilities: Mapping[str, float], *, abstained: bool) -> Triage:
    """Return the triage of one answer.

    Args:
        probabilities: calibrated, by class name; a class that is not named counts as 0.
        abstained: whether no class was probable enough to be an answer.
    """
    pressing = [_of_class(entry, probabilities.get(entry.name, 0.0)) for entry in taxonomy().classes]
    if abstained:
        pressing.append("soon")
    return max(pressing, key=TRIAGES.index)


def _of_class(entry: Class, probability: float) -> Triage:
    if entry.urgent_above is not None and probability >= entry.urgent_above:
        return "urgent"
    if entry.soon_above is not None and probability >= entry.soon_above:
        return "soon"
    return "routine"
