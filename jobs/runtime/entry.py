"""How every job starts and ends: arguments from dataclasses, one JSON line last, exit code 0, 3 or 1.

Default < recipe < command line: the recipe's values are the parser's defaults, `--config FILE` and flags win.
"""

import json
import logging
import os
import re
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields, is_dataclass
from typing import Any, NoReturn, TypeVar

import jsonargparse
import psycopg
from httpx import HTTPError

from cluster.expected import ExpectedError
from cluster.home import PROJECT_ROOT

EXIT_OK, EXIT_FAILED, EXIT_HALTED = 0, 1, 3
DEFAULT_RECIPE = "demo"
A = TypeVar("A")


class JobError(ExpectedError):
    """A job cannot go on; the message is the one line that the user sees."""


class Halted(Exception):
    """A gate stopped the job; the report goes into the last line, the exit code is 3."""

    def __init__(self, why: str, report: dict[str, Any]) -> None:
        super().__init__(why)
        self.report = report


EXPECTED = (
    ExpectedError,
    ValueError,
    psycopg.OperationalError,
    HTTPError,
    OSError,
)
"""What ends a job in one clear line; anything else is a defect and brings its traceback."""


def parse(
    kind: type[A],
    name: str,
    argv: Sequence[str] | None = None,
    defaults: Callable[[str], dict[str, Any]] | None = None,
) -> A:
    """Fill the dataclass `kind` from the command line.

    Args:
        defaults: recipe name → {argument: dataclass}; given when the job takes `--recipe`.
    """
    argv = _with_values(kind, sys.argv[1:] if argv is None else list(argv))
    parser = _Parser(
        prog=f"python -m jobs.{name}", description=sys.modules[kind.__module__].__doc__, allow_abbrev=False
    )
    parser.add_argument("--config", action="config", help="YAML or JSON file with any of the arguments")
    parser.add_class_arguments(kind, None)
    if defaults is not None:
        chosen = _flag(argv, "--recipe")
        try:
            given = defaults(chosen or DEFAULT_RECIPE).items()
            parser.set_defaults({key: leaf for part, one in given for key, leaf in _flat(part, one).items()})
        except KeyError as error:
            parser.error(f"there is no recipe {error.args[0]}")
    values = parser.instantiate_classes(parser.parse_args(argv)).as_dict()
    values.pop("config", None)
    return kind(**values)


class _Parser(jsonargparse.ArgumentParser):
    """Says what is wrong in one line, without the list of all arguments before it."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        line = " ".join(message.split())
        if wrong := re.fullmatch(r'Parser key "(.+)": Cannot take a Union of no types\.', line):
            choices = next(one.metavar for one in self._actions if one.dest == wrong[1])
            line = f"{wrong[1]} is one of {choices}"
        sys.stderr.write(f"{self.prog}: {line} (--help lists the arguments)\n")
        sys.exit(2)


def _with_values(kind: type[Any], argv: Sequence[str]) -> list[str]:
    """`--fresh` alone means `--fresh true`."""
    switches = {f"--{one.name}" for one in fields(kind) if one.type in (bool, "bool")}
    spelled: list[str] = []
    for nth, one in enumerate(argv):
        spelled.append(one)
        if one in switches and argv[nth + 1 : nth + 2] not in (["true"], ["false"]):
            spelled.append("true")
    return spelled


def _flat(name: str, value: Any) -> dict[str, Any]:
    """Nested dataclasses as dotted names, the way a parser takes defaults; a dictionary is one value."""
    if not is_dataclass(value):
        return {name: value}
    inner = {one.name: getattr(value, one.name) for one in fields(value)}
    return {key: leaf for part, one in inner.items() for key, leaf in _flat(f"{name}.{part}", one).items()}


def _flag(argv: Sequence[str], flag: str) -> str | None:
    for nth, one in enumerate(argv):
        if one == flag and nth + 1 < len(argv):
            return argv[nth + 1]
        if one.startswith(f"{flag}="):
            return one.partition("=")[2]
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
    if status == "failed":
        sys.stderr.write(f"jobs.{name}: {report['error']}\n")
    sys.stderr.flush()
    sys.stdout.write(json.dumps({"job": name, "status": status, **report}, default=str) + "\n")
    sys.stdout.flush()
    sys.exit(code)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:2000] or type(error).__name__


def git_commit() -> str:
    """The commit that runs, from the job's environment or the checkout; "unknown" where there is neither."""
    told = os.environ.get("RAYDIOLOGY_GIT_COMMIT")
    if told:
        return told
    try:
        found = subprocess.run(
            ["git", "-C", str(PROJECT_ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found.stdout.strip()


def join_ray(ray_address: str) -> None:
    """Connect this driver to the cluster; Ray's own log stays quiet."""
    import ray

    if not ray.is_initialized():
        ray.init(address=ray_address, logging_level="ERROR", log_to_driver=True)
