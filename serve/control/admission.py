"""Admission of a version to an environment: its tags in the registry against the environment's requirements. Pure.

Rollouts (`serve.control.start`) and deployments (`serve.control.deploy`) ask before they change anything.
"""

from collections.abc import Collection, Mapping
from typing import Literal

from cluster.expected import ExpectedError
from cluster.releases.registry import VIT

Requirement = Literal["evaluation", "load_test"]
LOAD_TEST, LOAD_RATE = "load_test", "load_test_rate"
"""Tags that `jobs.load_test` leaves: pass or fail, and the requests a second that it sent."""


class AdmissionError(ExpectedError):
    """The version has not met a requirement; the message has the command to run."""


def admit(
    model: str,
    version: str,
    tags: Mapping[str, str],
    *,
    environment: str,
    asks_for: Collection[Requirement],
    load_rate: float,
) -> None:
    """Check the requirements of an environment.

    Args:
        load_rate: requests a second of the least load test that counts.
    Raises:
        AdmissionError: a requirement is not met.
    """
    if model != VIT:
        return
    if "evaluation" in asks_for and tags.get("verdict") != "pass":
        raise AdmissionError(
            f"{model} version {version} has not passed its gates; run `python -m jobs.evaluate` for it first"
        )
    if "load_test" not in asks_for:
        return
    command = f"run `python -m jobs.load_test --version {version} --rate {load_rate:g}`"
    verdict, sent = tags.get(LOAD_TEST), float(tags.get(LOAD_RATE, 0))
    demand = f"{environment} asks for a load test of {model} version {version}"
    if verdict is None:
        raise AdmissionError(f"{demand}, and there was none: {command}")
    if verdict != "pass":
        raise AdmissionError(
            f"{demand}, and it failed ({tags.get('load_test_why', 'see its report')}): {command}"
        )
    if sent < load_rate:
        raise AdmissionError(
            f"{demand} at {load_rate:g} requests a second, and it was at {sent:g}: {command}"
        )
