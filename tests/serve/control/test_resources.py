"""What a site may say about its machine, and what it is told when it says something else."""

from pathlib import Path
from typing import Any

import pytest

from serve.control.resources import MachineError, read, serve_options, sized

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")
TWO = {"front_door": {"num_replicas": 2}, "classifier": {"num_replicas": 2}}


def test_without_a_wish_it_is_the_embedded_platforms() -> None:
    parts = sized({})
    assert parts["front_door"]["num_replicas"] == 1
    assert serve_options(parts["classifier"])["autoscaling_config"]["max_replicas"] == 2
    assert "threads" not in serve_options(parts["classifier"])


def test_a_key_replaces_a_key_and_the_rest_stays() -> None:
    parts = sized({"classifier": {"threads": 7}})
    assert parts["classifier"] == {**sized({})["classifier"], "threads": 7}
    assert parts["explainer"] == sized({})["explainer"]


def test_a_number_of_replicas_replaces_autoscaling_and_the_other_way_round() -> None:
    assert "autoscaling_config" not in sized(TWO)["classifier"]
    scaling = {"min_replicas": 2, "max_replicas": 4}
    front_door = sized({"front_door": {"autoscaling_config": scaling}})["front_door"]
    assert "num_replicas" not in front_door
    assert front_door["autoscaling_config"] == scaling


def test_a_share_of_a_gpu_is_passed_on() -> None:
    wanted = {"classifier": {"device": "cuda", "ray_actor_options": {"num_cpus": 1, "num_gpus": 0.25}}}
    assert serve_options(sized(wanted)["classifier"])["ray_actor_options"]["num_gpus"] == 0.25


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        (
            {"clasifier": {}},
            "there is no part 'clasifier'; there are front_door, controller, classifier, exp",
        ),
        ({"classifier": {"replicas": 2}}, "classifier has no replicas; it has"),
        ({"classifier": {"autoscaling_config": {"min_replica": 3}}}, "autoscaling_config has no min_replica"),
        ({"classifier": {"autoscaling_config": {"min_replicas": 3, "max_replicas": 2}}}, "max_replicas"),
        ({"classifier": {"ray_actor_options": {"num_gpu": 1}}}, "ray_actor_options has no num_gpu; it has"),
        ({"classifier": {"ray_actor_options": {"num_cpus": -1}}}, "num_cpus: .*greater than or equal to 0"),
        ({"classifier": {"device": "cuda"}}, "without a share of a GPU: set ray_actor_options.num_gpus"),
        ({"classifier": {"device": "tpu"}}, "has to be one of cpu, cuda"),
        ({"classifier": {"threads": 0}}, "classifier.threads is 0"),
        ({"front_door": {"num_replicas": 0}}, "front_door.num_replicas.*greater than 0"),
        ({"front_door": {"num_replicas": 2, "autoscaling_config": {}}}, "num_replicas is not allowed"),
        ({"front_door": {"rates": {"visitor": {"per_s": 1, "burst": 1}}}}, "visitor"),
        ({"front_door": {"rates": None}}, "rates take roles"),
        ({"front_door": {"rates": {"client": 7}}}, "rates take roles"),
        ({"front_door": {"rates": {"client": {"per_s": float("nan"), "burst": 1}}}}, "per_s > 0"),
        ({"front_door": {"rates": {"client": {"per_s": 1, "burst": float("inf")}}}}, "burst >= 1"),
        ({"front_door": 2}, "front_door has to have options"),
        ([2], "it has to name parts of the graph"),
    ],
)
def test_what_cannot_be_is_refused_by_name(wanted: Any, told: str) -> None:
    with pytest.raises(MachineError, match=told):
        sized(wanted)


def test_a_file_is_named_in_the_error(tmp_path: Path) -> None:
    file = tmp_path / "site.yaml"
    with pytest.raises(MachineError, match=r"site\.yaml cannot be read: No such file"):
        read(file)
    file.write_text("front_door: [")
    with pytest.raises(MachineError, match=r"site\.yaml is no YAML"):
        read(file)
    file.write_text("front_door: {num_replicas: 0}")
    with pytest.raises(MachineError, match=r"site\.yaml: front_door"):
        read(file)
    file.write_text("front_door: {num_replicas: 2}")
    assert read(file) == {"front_door": {"num_replicas": 2}}
    file.write_text("{}")
    assert read(file) == {}
    file.write_text("")
    with pytest.raises(MachineError, match=r"site\.yaml: it is empty; `\{\}` takes back"):
        read(file)
    file.write_bytes(b"\xff")
    with pytest.raises(MachineError, match=r"site\.yaml is no text in UTF-8"):
        read(file)
    file.write_text("[" * 3000)
    with pytest.raises(MachineError, match=r"site\.yaml is nested too deep"):
        read(file)
    for wanted in ("false", "0", "[]"):
        file.write_text(wanted)
        with pytest.raises(MachineError, match=r"site\.yaml: it has to name parts"):
            read(file)
