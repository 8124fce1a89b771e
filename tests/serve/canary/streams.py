"""Evidence of one step, and requests that failed in it."""

from serve.canary.evidence import Evidence
from serve.canary.guardrails import GuardrailConfig, Step
from serve.canary.observations import Observation
from serve.canary.simulation import SLOW_MS

LABELS = tuple("abcdefghij")


CONFIG = GuardrailConfig(labels=LABELS, slow_ms=SLOW_MS)


STEP = Step(share=0.1)


def begun(config: GuardrailConfig = CONFIG) -> Evidence:
    evidence = Evidence(config, started_at=0.0)
    evidence.enter(STEP, number=1, at=0.0)
    return evidence


def failed(n: int, *, arm: str = "canary", patient: str | None = None, at: float = 1.0) -> list[Observation]:
    one = Observation(at=at, arm=arm, share=0.1, outcome="model_error", patient=patient)  # type: ignore[arg-type]
    return [one] * n
