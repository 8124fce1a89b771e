"""A model registry in memory, and a fine-tuning job over it."""

from typing import Any, cast

from cluster.releases.registry import Registry
from serve.explanation.pass_rate import Audit


class Remembering:
    """A registry in memory."""

    def __init__(self, versions: dict[str, dict[str, str]]) -> None:
        self.kept = versions
        self.aliases: dict[str, str] = {"champion": "1"}

    def versions(self, model: str) -> list[str]:
        return list(self.kept)

    def tags(self, model: str, version: str) -> dict[str, str]:
        return self.kept[version]

    def set_tags(self, model: str, version: str, tags: dict[str, str]) -> None:
        self.kept[version] |= tags

    def version_by_alias(self, model: str, alias: str) -> str | None:
        return self.aliases.get(alias)

    def set_alias(self, model: str, alias: str, version: str) -> None:
        self.aliases[alias] = version


def registry(**versions: dict[str, str]) -> Any:
    return cast(Registry, Remembering({name.removeprefix("v"): tags for name, tags in versions.items()}))


def asked(passing: int) -> Audit:
    return Audit(findings=60, passing=passing, problems={})
