"""How settings are refused: one error with one line, for settings of either model."""

import difflib
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Literal, get_args, get_origin


class TrainConfigError(ValueError):
    """A setting has an impossible value; the message names it and, where possible, what to set instead."""


def require(condition: bool, message: str) -> None:
    """Raise TrainConfigError with this message unless the condition holds."""
    if not condition:
        raise TrainConfigError(message)


def require_choices(config: Any, prefix: str = "") -> None:
    """Check each field whose type is a Literal.

    Raises:
        TrainConfigError: its value is none of the literals.
    """
    for setting in fields(config):
        if get_origin(setting.type) is Literal:
            choices, value = get_args(setting.type), getattr(config, setting.name)
            listed = ", ".join(map(str, choices))
            require(value in choices, f"{prefix}{setting.name} is one of {listed}, got {value!r}")


def build(kind: type[Any], values: Mapping[str, Any], prefix: str = "") -> Any:
    """Make a dataclass of settings.

    Raises:
        TrainConfigError: a key is no setting; the message names it, and the nearest that is one.
    """
    names = [setting.name for setting in fields(kind)]
    unknown = sorted(values.keys() - set(names))
    near = difflib.get_close_matches(unknown[0], names, 1) if unknown else []
    hint = f": did you mean {prefix}{near[0]}?" if near else ""
    require(not unknown, f"there is no setting {', '.join(prefix + name for name in unknown)}{hint}")
    return kind(**values)
