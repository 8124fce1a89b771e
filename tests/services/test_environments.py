"""What environments ask for, of versions in a real registry."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.releases.registry import VIT, Registry
from serve.control import environments
from serve.control.admission import AdmissionError
from serve.control.deploy import let_in
from serve.control.environments import FILE
from serve.control.start import start_rollout


@pytest.fixture
def version(platform: Any) -> str:
    """A version whose gates passed, of nothing: it is asked about and never served."""
    return Registry(platform.settings).register(VIT, "bundles/environments-test", None, {"verdict": "pass"})


@pytest.fixture(params=["canary", "production"])
def settings(platform: Any, request: pytest.FixtureRequest) -> Any:
    return replace(platform.settings, environment=request.param)


def tag(platform: Any, version: str, **tags: str) -> None:
    Registry(platform.settings).set_tags(VIT, version, tags)


def test_a_rollout_or_deployment_of_a_version_without_load_test_is_refused(
    platform: Any, settings: Any, version: str
) -> None:
    command = rf"run `python -m jobs\.load_test --version {version} --rate 10`"
    where = environments.own(settings)
    for told, said in (
        ({}, "and there was none"),
        (
            {"load_test": "fail", "load_test_why": "P99 900 ms", "load_test_rate": "10"},
            r"and it failed \(P99 900 ms\)",
        ),
        ({"load_test": "pass", "load_test_rate": "5"}, "and it was at 5"),
    ):
        tag(platform, version, **told)
        with pytest.raises(AdmissionError, match=f"{settings.environment} asks for .*{said}: {command}"):
            start_rollout(settings, model=VIT, version=version, actor="t")
        with pytest.raises(AdmissionError, match=said):
            let_in(settings, version, where, served="another")
    tag(platform, version, load_test="pass", load_test_rate="10")
    let_in(settings, version, where, served="another")
    Registry(platform.settings).client.delete_model_version_tag(VIT, version, "load_test")


def test_where_there_is_nobody_to_keep_waiting_none_is_asked_for(settings: Any, version: str) -> None:
    where = environments.own(settings)
    let_in(settings, version, where, served=None)
    let_in(settings, version, where, served=version)


def test_development_and_staging_ask_for_the_gates_alone(platform: Any, version: str) -> None:
    for name in ("development", "staging"):
        where = environments.environments(platform.settings)[name]
        let_in(platform.settings, version, where, served="another")
        tag(platform, version, verdict="fail")
        with pytest.raises(AdmissionError, match="has not passed its gates"):
            let_in(platform.settings, version, where, served="another")
        tag(platform, version, verdict="pass")


def test_a_site_that_asks_for_more_is_obeyed(platform: Any, version: str, tmp_path: Path) -> None:
    values = yaml.safe_load(FILE.read_text())
    values["development"] |= {"asks_for": ["evaluation", "load_test"], "load_rate": 200}
    path = tmp_path / "environments.yaml"
    path.write_text(yaml.safe_dump(values))
    settings = replace(platform.settings, environments_file=path)
    with pytest.raises(AdmissionError, match=r"development asks for .* --rate 200`"):
        start_rollout(settings, model=VIT, version=version, actor="t")
