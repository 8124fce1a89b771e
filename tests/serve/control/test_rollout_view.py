"""What operators see of a rollout is what its type says."""

import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import TypeAdapter

from data.taxonomy import taxonomy
from serve.canary.guardrails import GuardrailConfig
from serve.canary.promotion import RemainingEvidence
from serve.control.plan import STARTING, Plan, Rollout
from serve.control.rollout_view import RolloutView, summarise

PLAN = Plan(guardrails=GuardrailConfig(labels=taxonomy().names))
MISSING = asdict(RemainingEvidence(requests=10, pairs=0, minutes=None))
VERDICT = json.loads(json.dumps({"action": "hold", "why": "too few", "missing": MISSING, "guardrails": [{}]}))


@pytest.mark.parametrize(("step", "verdict"), [(STARTING, {}), (0, VERDICT)])
def test_the_view_has_every_field_of_its_type_and_no_other(step: int, verdict: dict[str, Any]) -> None:
    rollout = Rollout(
        id=1,
        model="xray-vit",
        version="2",
        champion="1",
        bundle_key="bundles/2",
        plan=PLAN,
        state="starting" if step == STARTING else "running",
        step=step,
        started_at=datetime(2026, 1, 1, tzinfo=UTC),
        started_by="operator",
        verdict=verdict,
        evidence={"large": True},
    )
    view = summarise(rollout, {"1": 1.0, "2": 0.0})
    assert TypeAdapter(RolloutView).validate_python(view, strict=True) == view
    assert set(view) == set(RolloutView.__annotations__)
    assert (view["step"] is None) == (step == STARTING)
