"""Resources of each part of the Serve graph: replicas, autoscaling, shares of CPUs and GPUs, rate limits.

`machine.yaml` has the embedded platform's numbers. A site's own file overrides them (`python -m jobs.deploy
--machine FILE`); PostgreSQL stores it with the rest of the desired state (`serve.routing.desired_state`), since
the reconciler may run on another node than the file.
"""

from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from cluster.expected import ExpectedError
from serve.access.rate_limit import RateConfig

DEFAULT = Path(__file__).with_name("resources.yaml")
OWN = ("threads", "device", "rates")
"""Keys that are ours; the others are Serve's options of a deployment (`ray.serve.schema.DeploymentSchema`)."""
DEVICES = ("cpu", "cuda")
COUNTS = ("num_replicas", "autoscaling_config")
"""A part has one of these."""


class MachineError(ExpectedError):
    """Impossible content of a machine file; the message names file and key."""


def read(path: Path) -> dict[str, Any]:
    """Read and check a site's overrides.

    Raises:
        MachineError: the file cannot be read, or asks for the impossible.
    """
    try:
        wanted = yaml.safe_load(path.read_text())
        if wanted is None:
            raise MachineError("it is empty; `{}` takes back what was wished before")
        sized(wanted)
    except OSError as error:
        raise MachineError(f"the machine file {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise MachineError(f"the machine file {path} is no text in UTF-8") from error
    except RecursionError as error:
        raise MachineError(f"the machine file {path} is nested too deep") from error
    except yaml.YAMLError as error:
        raise MachineError(f"the machine file {path} is no YAML: {' '.join(str(error).split())}") from error
    except MachineError as error:
        raise MachineError(f"the machine file {path}: {error}") from error
    return wanted


def sized(wanted: dict[str, Any]) -> dict[str, Any]:
    """Return all parts, with a site's overrides applied.

    A key replaces the embedded platform's key as a whole; `num_replicas` and `autoscaling_config` replace each other.

    Raises:
        MachineError: an impossible part, key or value.
    """
    parts: dict[str, Any] = yaml.safe_load(DEFAULT.read_text())
    if not isinstance(wanted, dict):
        raise MachineError(f"it has to name parts of the graph: {', '.join(parts)}")
    for name, options in wanted.items():
        if name not in parts:
            raise MachineError(f"there is no part {name!r}; there are {', '.join(parts)}")
        if not isinstance(options, dict):
            raise MachineError(f"{name} has to have options, such as num_replicas: 2")
        replaced = COUNTS if any(key in options for key in COUNTS) else ()
        unchanged = {key: value for key, value in parts[name].items() if key not in replaced}
        parts[name] = {**unchanged, **options}
        _check(name, parts[name])
    return parts


def serve_options(part: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a part that are Ray Serve's."""
    return {name: value for name, value in part.items() if name not in OWN}


def _check(name: str, part: dict[str, Any]) -> None:
    from ray.serve.config import AutoscalingConfig  # a second of imports, for the few sites with a file
    from ray.serve.schema import DeploymentSchema, RayActorOptionsSchema

    _known(name, part, {*OWN, *DeploymentSchema.model_fields} - {"name", "user_config"})
    for key, schema in (
        ("autoscaling_config", AutoscalingConfig),
        ("ray_actor_options", RayActorOptionsSchema),
    ):
        if key in part:
            _known(f"{name}.{key}", part[key], set(schema.model_fields))
    threads = part.get("threads", 1)
    if type(threads) is not int or threads < 1:
        raise MachineError(f"{name}.threads is {threads!r}, and has to be a whole number from 1 on")
    if part.get("device", DEVICES[0]) not in DEVICES:
        raise MachineError(f"{name}.device is {part['device']!r}, and has to be one of {', '.join(DEVICES)}")
    if part.get("device") == "cuda" and not (part.get("ray_actor_options") or {}).get("num_gpus"):
        raise MachineError(f"{name} runs on cuda without a share of a GPU: set ray_actor_options.num_gpus")
    try:
        DeploymentSchema(name=name, **serve_options(part))
        AutoscalingConfig(**part.get("autoscaling_config", {}))
        RateConfig.from_dict(part.get("rates", {}))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join([name, *(str(place) for place in first["loc"] if place != "AutoscalingConfig")])
        raise MachineError(f"{where}: {first['msg']}") from error
    except (TypeError, ValueError) as error:
        raise MachineError(f"{name}: {error}") from error


def _known(where: str, options: Any, known: set[str]) -> None:
    if not isinstance(options, dict):
        raise MachineError(f"{where} has to have keys: {', '.join(sorted(known))}")
    unknown = [str(key) for key in options if key not in known]
    if unknown:
        raise MachineError(f"{where} has no {', '.join(unknown)}; it has {', '.join(sorted(known))}")
