"""The pass rate of a language model: how often its own words may be shown, with no template and no added fact.

`jobs.finetune_llm` measures it before and after, with the prompt, limits and checker of the service. Knows neither
Ray nor torch.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from serve.explanation.checker import check
from serve.explanation.explanation import MAX_NEW_TOKENS
from serve.explanation.finding import Finding, prompt

DEADLINE_S = 600.0
"""Seconds for one text, generous: a slow machine must not look like a bad model."""


class TextGenerator(Protocol):
    def generate(self, prompt: str, *, max_new_tokens: int, deadline_s: float) -> Iterator[str]:
        """Generate text as `serve.explanation.llm.LanguageModel` does."""


@dataclass(frozen=True, kw_only=True)
class Audit:
    findings: int
    passing: int
    """Texts that the checker accepts."""
    problems: dict[str, int]
    """Code of the checker → in how many texts."""

    @property
    def share(self) -> float:
        return self.passing / self.findings

    def figures(self, prefix: str) -> dict[str, float]:
        """Return MLflow metrics: shares of all texts."""
        shares = {f"{prefix}_{code}": count / self.findings for code, count in self.problems.items()}
        return {f"{prefix}_passing": self.share, **shares}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Audit":
        return cls(**values)


def audit(
    model: TextGenerator, findings: Sequence[Finding], progress: Callable[[int], None] = lambda done: None
) -> Audit:
    """Let the model write about each finding, and check the texts.

    Args:
        progress: called after each finding with the number done.
    """
    problems: Counter[str] = Counter()
    passing = 0
    for done, finding in enumerate(findings, start=1):
        pieces = model.generate(prompt(finding), max_new_tokens=MAX_NEW_TOKENS, deadline_s=DEADLINE_S)
        against = check("".join(pieces).strip(), finding)
        passing += not against
        problems.update(against)
        progress(done)
    return Audit(findings=len(findings), passing=passing, problems=dict(sorted(problems.items())))
