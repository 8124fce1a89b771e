"""How every job starts and ends: arguments from dataclasses, one JSON line last, exit code 0, 3, 1 or 2.

Default < recipe < command line: the recipe's values are the parser's defaults, `--config FILE` and flags win.
"""

import json
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields, is_dataclass
from typing import Any, NoReturn, TypeVar

import jsonargparse
import psycopg
from httpx import HTTPError

from cluster.expected import ExpectedError
from cluster.settings import PROJECT_ROOT
from jobs.runtime import working_tree

EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_HALTED = 0, 1, 2, 3
DEFAULT_RECIPE = "demo"
A = TypeVar("A")
Defaults = Callable[[str], dict[str, Any]]
"""Recipe name → {argument: dataclass}."""


class JobError(ExpectedError):
    """A job cannot go on; the message is the one line that the user sees."""


class ArgumentsError(ValueError):
    """The command line is wrong: a flag, a value, or flags that do not go together."""


class Halted(Exception):
    """A gate stopped the job; the report goes into the last line, the exit code is 3."""

    def __init__(self, why: str, report: dict[str, Any]) -> None:
        super().__init__(why)
        self.report = report


EXPECTED = (ExpectedError, ValueError, psycopg.OperationalError, HTTPError, OSError)
"""Errors that end a job in one clear line; anything else is a defect and prints its traceback."""


def main(name: str, kind: type[A], work: Callable[[A], Any], defaults: Defaults | None = None) -> NoReturn:
    """Run a job from its command line to its last line and exit code.

    Args:
        kind: dataclass of the arguments; its module's docstring is the text of `--help`.
        work: does the job; returns a dictionary or dataclass, the fields of the last line.
        defaults: given when the job takes `--recipe`.
    """
    run(name, lambda: work(parse(kind, name, defaults=defaults)))


def parse(kind: type[A], name: str, argv: Sequence[str] | None = None, defaults: Defaults | None = None) -> A:
    """Fill the dataclass `kind` from the command line.

    Raises:
        ArgumentsError: a flag is unknown, or the dataclass refuses a value.
    """
    argv = _with_values(kind, sys.argv[1:] if argv is None else list(argv))
    parser = _Parser(
        prog=f"python -m jobs.{name}", description=sys.modules[kind.__module__].__doc__, allow_abbrev=False
    )
    parser.add_argument("--config", action="config", help="YAML or JSON file with any of the arguments")
    parser.add_class_arguments(kind, None)
    if defaults is not None:
        parser.set_defaults(_recipe_defaults(defaults, _flag(argv, "--recipe") or DEFAULT_RECIPE))
    values = parser.parse_args(argv)
    try:
        arguments = parser.instantiate_classes(values).as_dict()
        arguments.pop("config", None)
        return kind(**arguments)
    except ValueError as error:
        raise ArgumentsError(str(error)) from error


class _Parser(jsonargparse.ArgumentParser):
    """Raises what is wrong as one line, without the list of all arguments before it."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        line = " ".join(message.split())
        if wrong := re.fullmatch(r'Parser key "(.+)": Cannot take a Union of no types\.', line):
            choices = next(action.metavar for action in self._actions if action.dest == wrong[1])
            line = f"{wrong[1]} is one of {choices}"
        raise ArgumentsError(f"{line} (--help lists the arguments)")


def _recipe_defaults(defaults: Defaults, recipe: str) -> dict[str, Any]:
    try:
        values = defaults(recipe)
    except KeyError as error:
        raise ArgumentsError(f"there is no recipe {error.args[0]}") from error
    return {key: leaf for name, value in values.items() for key, leaf in _flat(name, value).items()}


def _with_values(kind: type[Any], argv: Sequence[str]) -> list[str]:
    """Spell `--fresh` alone as `--fresh true`."""
    switches = {f"--{field.name}" for field in fields(kind) if field.type in (bool, "bool")}
    spelled: list[str] = []
    for nth, word in enumerate(argv):
        spelled.append(word)
        if word in switches and argv[nth + 1 : nth + 2] not in (["true"], ["false"]):
            spelled.append("true")
    return spelled


def _flat(name: str, value: Any) -> dict[str, Any]:
    """Name the leaves of nested dataclasses with dots, as a parser takes defaults; a dictionary is one value."""
    if not is_dataclass(value):
        return {name: value}
    inner = {field.name: getattr(value, field.name) for field in fields(value)}
    return {key: leaf for part, each in inner.items() for key, leaf in _flat(f"{name}.{part}", each).items()}


def _flag(argv: Sequence[str], flag: str) -> str | None:
    for nth, word in enumerate(argv):
        if word == flag and nth + 1 < len(argv):
            return argv[nth + 1]
        if word.startswith(f"{flag}="):
            return word.partition("=")[2]
    return None


def run(name: str, work: Callable[[], Any]) -> NoReturn:
    """Run a job to its last line.

    `work` returns a dictionary or dataclass that becomes the line's fields.
    """
    logging.basicConfig(level=os.environ.get("RAYDIOLOGY_LOG_LEVEL", "WARNING"), stream=sys.stderr)
    try:
        result = work()
        report = (
            asdict(result) if is_dataclass(result) and not isinstance(result, type) else dict(result or {})
        )
        finish(name, "ok", report, EXIT_OK)
    except Halted as verdict:
        finish(name, "halted", {"why": str(verdict), **verdict.report}, EXIT_HALTED)
    except ArgumentsError as error:
        finish(name, "failed", {"error": _one_line(error)}, EXIT_USAGE)
    except KeyboardInterrupt:
        finish(name, "failed", {"error": "interrupted; run it again to go on"}, EXIT_FAILED)
    except EXPECTED as error:
        if logging.getLogger().isEnabledFor(logging.INFO):
            traceback.print_exc()
        finish(name, "failed", {"error": _one_line(error)}, EXIT_FAILED)
    except Exception as error:  # noqa: BLE001 - the last resort; the traceback is shown, the line still written
        traceback.print_exc()
        finish(name, "failed", {"error": f"{type(error).__name__}: {_one_line(error)}"}, EXIT_FAILED)


def finish(name: str, status: str, report: dict[str, Any], code: int) -> NoReturn:
    """Write the last line and exit."""
    if status == "failed":
        sys.stderr.write(f"jobs.{name}: {report['error']}\n")
    sys.stderr.flush()
    sys.stdout.write(json.dumps({"job": name, "status": status, **report}, default=str) + "\n")
    sys.stdout.flush()
    sys.exit(code)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:2000] or type(error).__name__


def git_commit() -> str:
    """Return the commit that runs, from the job's environment or the checkout; "unknown" without either."""
    commit = os.environ.get("RAYDIOLOGY_GIT_COMMIT") or working_tree.git(PROJECT_ROOT, "rev-parse", "HEAD")
    return (commit or "unknown").strip()


def join_ray(ray_address: str) -> None:
    """Connect this driver to the cluster; Ray's own log stays quiet."""
    import ray

    if not ray.is_initialized():
        ray.init(address=ray_address, logging_level="ERROR", log_to_driver=True)
