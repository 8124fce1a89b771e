"""Runs Ray Tune over a sweep's trials and gives each trial room on the cluster.

`tune.sweep` calls `run_trials`; what comes of the trials is recorded by `tune.sweep_driver`, not by Ray Tune.
"""

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import ray
import ray.tune
from ray.tune.search.basic_variant import BasicVariantGenerator

from train.checkpoints.temp_folders import scratch
from train.config import TrainConfig
from tune import schedulers
from tune.capacity import Node, concurrent, room
from tune.sweep_driver import Sampler, SweepDriver
from tune.trial import TRIAL, TrialDriver, TrialEnvironment

NODE_SHARES = 10_000
"""Ray counts resources in ten-thousandths."""
PATIENCE_S = 60.0
"""How long a sweep waits until a trial has room beside what runs on the cluster already."""
RAY_TUNE = {"TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1", "TUNE_MAX_PENDING_TRIALS_PG": "1"}
"""The sweep store and MLflow have the results; and a trial is not asked for before there is room for it."""


def room_now(config: TrainConfig, patience_s: float = PATIENCE_S) -> list[Node]:
    """Return what the cluster's nodes have for trials, once one has room beside what else runs.

    This machine counts with no more processors than it really has, although Ray may be configured with more; a single
    trial may use those all the same.
    """
    deadline = time.monotonic() + patience_s
    workers = config.min_workers or config.num_workers
    needed = Node(cpus=workers * config.cpus_per_worker, gpus=workers if config.use_gpu else 0)
    while (free := ray.available_resources()).get("CPU", 0) < needed.cpus and time.monotonic() < deadline:
        time.sleep(1)
    if free.get("CPU", 0) < needed.cpus:
        return [Node(cpus=free.get("CPU", 0), gpus=free.get("GPU", 0))]
    alive = [entry for entry in ray.nodes() if entry["Alive"]]
    here = ray.get_runtime_context().get_node_id()
    resources = [entry["Resources"] for entry in alive]
    nodes = [Node(cpus=each.get("CPU", 0), gpus=each.get("GPU", 0)) for each in resources]
    real = [
        replace(node, cpus=min(node.cpus, os.cpu_count() or 1)) if entry["NodeID"] == here else node
        for entry, node in zip(alive, nodes, strict=True)
    ]
    if room(nodes, config) and not room(real, config):
        return [needed]
    return real if room(real, config) else nodes


def run_trials(driver: SweepDriver, environment: TrialEnvironment, nodes: Sequence[Node]) -> None:
    """Run Tune until the driver has no more trials.

    Each driver holds a share of this node's own resource, as large as makes the wanted number of them fit at once: so
    no other begins before all that one held is free, whatever the scheduler does.
    """
    config, train = driver.spec.config, driver.spec.train
    at_once = concurrent(nodes, train, wanted=config.max_concurrent_trials, trials=config.trials)
    for name, value in RAY_TUNE.items():
        os.environ.setdefault(name, value)
    share = ray.tune.PlacementGroupFactory([{_own_node(): (NODE_SHARES // at_once) / NODE_SHARES}])
    trainable = ray.tune.with_resources(ray.tune.with_parameters(TrialDriver, environment=environment), share)
    with scratch() as nothing:  # what Tune would keep, the sweep store has
        tuner = ray.tune.Tuner(
            trainable,
            **_searched(driver, train.epochs, at_once),
            run_config=ray.tune.RunConfig(
                name="sweep",
                storage_path=str(nothing),
                callbacks=[driver],
                checkpoint_config=ray.tune.CheckpointConfig(checkpoint_at_end=False),
                verbose=0,
            ),
        )
        tuner.fit()


def _searched(driver: SweepDriver, epochs: int, at_once: int) -> dict[str, Any]:
    """Return Tune's settings that decide which trials it runs."""
    spec = driver.spec
    if spec.config.scheduler == "asha":
        scheduler = schedulers.asha(spec.config, epochs, driver.trial_store.trials)
        search = {
            "search_alg": Sampler(driver),
            "max_concurrent_trials": at_once,
            "num_samples": spec.config.trials,
        }
        return {"tune_config": ray.tune.TuneConfig(scheduler=scheduler, **search)}
    population = []
    while (config := driver.next_trial()) is not None:
        population.append(config[TRIAL])
    scheduler = schedulers.pbt(spec.config, spec.space, spec.seed)
    return {
        "param_space": {TRIAL: ray.tune.grid_search(population)},
        "tune_config": ray.tune.TuneConfig(scheduler=scheduler, search_alg=BasicVariantGenerator()),
    }


def _own_node() -> str:
    """Return the name of the resource that only this node has."""
    here = ray.get_runtime_context().get_node_id()
    own = next(node for node in ray.nodes() if node["NodeID"] == here)
    return next(
        name for name in own["Resources"] if name.startswith("node:") and "__internal_head__" not in name
    )
