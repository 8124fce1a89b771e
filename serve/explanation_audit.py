"""How often a language model's own words about a finding may be shown: no template steps in, no fact is added for it.

`jobs.finetune_llm` asks before and after, with the prompt, limits and checker of the service. Knows neither Ray nor
torch.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from serve.explanation import MAX_NEW_TOKENS
from serve.explanation_check import check
from serve.finding import Finding, prompt

DEADLINE_S = 600.0
"""No text is to be cut by the clock: a slow machine must not look like a bad model."""


class Writes(Protocol):
    def generate(self, prompt: str, *, max_new_tokens: int, deadline_s: float) -> Iterator[str]:
        """As `serve.llm.LanguageModel`."""


@dataclass(frozen=True, kw_only=True)
class Audit:
    findings: int
    passing: int
    """Texts that the checker has nothing against."""
    problems: dict[str, int]
    """Code of the checker → in how many texts."""

    @property
    def share(self) -> float:
        return self.passing / self.findings

    def figures(self, prefix: str) -> dict[str, float]:
        """As MLflow takes them: shares of all texts."""
        shares = {f"{prefix}_{code}": count / self.findings for code, count in self.problems.items()}
        return {f"{prefix}_passing": self.share, **shares}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Audit":
        return cls(**values)


def audit(
    model: Writes, findings: Sequence[Finding], told: Callable[[int], None] = lambda done: None
) -> Audit:
    """Have the model write about each finding, and check what it wrote.

    Args:
        told: hears after each finding how many are done.
    """
    problems: Counter[str] = Counter()
    passing = 0
    for done, one in enumerate(findings, start=1):
        pieces = model.generate(prompt(one), max_new_tokens=MAX_NEW_TOKENS, deadline_s=DEADLINE_S)
        against = check("".join(pieces).strip(), one)
        passing += not against
        problems.update(against)
        told(done)
    return Audit(findings=len(findings), passing=passing, problems=dict(sorted(problems.items())))
