import functools
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from cluster.embedded.home import PlatformError
from cluster.expected import ExpectedError
from cluster.objects import ObjectStoreError
from cluster.releases.registry import RegistryError
from data.catalog.tables import CatalogError
from data.dataset.etl import EtlError
from data.dataset.parts import StagingError
from data.privacy.erasure import ErasureError
from data.sandbox.decoder import SandboxError
from jobs.runtime import entry
from serve.control.reconciler import DeployError
from train.runs.workers import TrainError
from train.tracking.mlflow_runs import TrackingError


@dataclass(frozen=True, kw_only=True)
class Inner:
    epochs: int = 3
    """How often."""
    rate: float = 0.1

    def __post_init__(self) -> None:
        if self.rate < 0:
            raise ValueError("rate must not be negative")


@dataclass(frozen=True, kw_only=True)
class Arguments:
    recipe: str = "demo"
    inner: Inner = field(default_factory=Inner)


@dataclass(frozen=True, kw_only=True)
class Switches:
    fresh: bool = False
    name: str = ""


@pytest.mark.parametrize(
    ("argv", "fresh"),
    [
        ([], False),
        (["--fresh"], True),
        (["--fresh", "--name", "x"], True),
        (["--fresh", "true"], True),
        (["--fresh", "false"], False),
    ],
)
def test_a_switch_needs_no_value(argv: list[str], fresh: bool) -> None:
    assert entry.parse(Switches, "test", argv).fresh is fresh


def defaults(name: str) -> dict[str, Any]:
    return {"inner": {"demo": Inner(epochs=5), "long": Inner(epochs=50)}[name]}


def last_line(
    capsys: pytest.CaptureFixture[str], work: Callable[[], Any]
) -> tuple[int | str | None, dict[str, Any]]:
    with pytest.raises(SystemExit) as stopped:
        entry.run("test", work)
    return stopped.value.code, json.loads(capsys.readouterr().out.splitlines()[-1])


def test_default_is_beaten_by_the_recipe_and_the_recipe_by_the_command_line() -> None:
    assert entry.parse(Arguments, "test", []).inner == Inner(epochs=3)
    assert entry.parse(Arguments, "test", [], defaults).inner == Inner(epochs=5)
    assert entry.parse(Arguments, "test", ["--recipe", "long"], defaults).inner == Inner(epochs=50)
    argv = ["--recipe=long", "--inner.epochs", "7"]
    assert entry.parse(Arguments, "test", argv, defaults).inner == Inner(epochs=7)


def test_a_configuration_file_is_read(tmp_path: Any) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("inner:\n  rate: 0.5\n")
    assert entry.parse(Arguments, "test", ["--config", str(path)], defaults).inner == Inner(
        epochs=5, rate=0.5
    )


def test_an_unknown_recipe_or_abbreviated_flag_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for argv in (["--recipe", "nope"], ["--inner.epo", "7"]):
        code, line = last_line(capsys, functools.partial(entry.parse, Arguments, "test", argv, defaults))
        assert code == 2
        assert line["status"] == "failed"
        assert argv[1] in line["error"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--inner.epochz", "7"], "Unrecognized arguments: --inner.epochz 7"),
        (["--inner.epochs", "many"], 'Parser key "inner.epochs"'),
        (["--recipe", "nope"], "there is no recipe nope"),
        (["--inner.rate", "-1"], "rate must not be negative"),
    ],
)
def test_a_wrong_argument_is_named_in_one_line(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        entry.run("test", lambda: entry.parse(Arguments, "test", argv, defaults))
    printed = capsys.readouterr()
    assert stopped.value.code == 2
    assert message in printed.err
    assert len(printed.err.splitlines()) == 1
    assert message in json.loads(printed.out)["error"]


def test_a_job_that_ends_well_writes_its_report_and_exits_0(capsys: pytest.CaptureFixture[str]) -> None:
    code, line = last_line(capsys, lambda: {"rows": 3})
    assert (code, line) == (0, {"job": "test", "status": "ok", "rows": 3})


def test_a_gate_halts_with_3_and_its_report(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        raise entry.Halted("too weak", {"verdict": "fail"})

    code, line = last_line(capsys, work)
    assert (code, line) == (3, {"job": "test", "status": "halted", "why": "too weak", "verdict": "fail"})


def test_an_expected_error_is_one_line_without_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        raise entry.JobError("do\n this")

    with pytest.raises(SystemExit) as stopped:
        entry.run("test", work)
    printed = capsys.readouterr()
    assert stopped.value.code == 1
    assert json.loads(printed.out) == {"job": "test", "status": "failed", "error": "do this"}
    assert printed.err == "jobs.test: do this\n"


def test_a_defect_brings_its_traceback_and_still_the_last_line(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        raise ZeroDivisionError

    with pytest.raises(SystemExit) as stopped:
        entry.run("test", work)
    printed = capsys.readouterr()
    assert stopped.value.code == 1
    assert json.loads(printed.out)["status"] == "failed"
    assert "Traceback" in printed.err


@pytest.mark.parametrize(
    "kind",
    [
        CatalogError,
        DeployError,
        EtlError,
        ErasureError,
        ObjectStoreError,
        PlatformError,
        RegistryError,
        SandboxError,
        StagingError,
        TrackingError,
        TrainError,
        entry.JobError,
    ],
)
def test_what_is_no_defect_ends_in_one_line_without_a_traceback(
    capsys: pytest.CaptureFixture[str], kind: type[Exception]
) -> None:
    def work() -> None:
        raise kind("it does not answer:\nrun it again")

    with pytest.raises(SystemExit) as stopped:
        entry.run("test", work)
    told = capsys.readouterr()
    assert stopped.value.code == entry.EXIT_FAILED
    assert json.loads(told.out)["error"] == "it does not answer: run it again"
    assert told.err == "jobs.test: it does not answer: run it again\n"
    assert issubclass(kind, (ExpectedError, ValueError))


def test_a_defect_brings_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        raise RuntimeError("nobody thought of it")

    with pytest.raises(SystemExit):
        entry.run("test", work)
    told = capsys.readouterr()
    assert "Traceback" in told.err
    assert json.loads(told.out)["error"] == "RuntimeError: nobody thought of it"
