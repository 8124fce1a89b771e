"""Tests mirror the source: a module of some size has a test file of its name, at its place."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("cluster", "data", "train", "tune", "serve", "jobs")
MIN_LINES = 40
MIN_SHARE = 0.8
TIERS = ("ranks", "services", "services_training", "ray", "end_to_end")
"""Tiers that run what cannot run alone, in flat folders."""
ELSEWHERE: dict[str, str] = {
    "cluster/database.py": "tests/services/test_ledger.py connects and migrates, and writes what is audited",
    "data/privacy/image_rows.py": "tests/services/test_review_forget.py deletes a patient's rows in PostgreSQL",
    "jobs/bench/strategies.py": "tests/ranks/test_bench_strategies.py runs it on two workers",
    "train/config_checks.py": "tests/train/test_config.py refuses each wrong setting by it",
    "train/loop/interfaces.py": "protocols; tests/ranks/test_fit.py runs the loop over them",
    "cluster/releases/registry.py": "tests/services_training/test_train_services.py registers in MLflow",
    "data/catalog/ingest.py": "tests/services/test_ingest_etl.py ingests into PostgreSQL and S3",
    "data/catalog/intake.py": "tests/services/test_sources.py takes published data sets in",
    "data/catalog/originals.py": "tests/services/test_ingest_etl.py stores sealed originals in S3",
    "data/catalog/quarantine_review.py": "tests/services/test_review_forget.py reviews images in PostgreSQL",
    "data/catalog/shared_files.py": "tests/services/test_owners.py ingests one file under two patients",
    "data/catalog/tables.py": "tests/services/test_ingest_etl.py fills its tables in PostgreSQL",
    "data/dataset/commit.py": "tests/services/test_exactly_once.py kills etl while it publishes",
    "data/dataset/etl.py": "tests/services/test_ingest_etl.py makes dataset versions on Ray",
    "data/dataset/ray_map.py": "tests/ray/test_spread.py spreads work over Ray's workers with it",
    "data/dataset/split_decisions.py": "tests/services/test_growth.py grows a dataset over splits in PostgreSQL",
    "data/dataset/staging.py": "tests/services/test_exactly_once.py damages staged blocks in S3",
    "data/dataset/versions.py": "tests/services/test_ingest_etl.py reads versions from S3",
    "data/privacy/erasure.py": "tests/services/test_review_forget.py erases a patient everywhere",
    "data/validation/acceptance.py": "tests/services/test_validation_job.py judges and accepts versions",
    "train/evaluation/evaluate.py": "tests/services_training/test_evaluation.py evaluates versions",
    "train/evaluation/suite.py": "tests/services_training/test_evaluation.py runs the whole suite",
    "train/loop/setup.py": "tests/ranks/test_fit.py builds each of its runs with it, on gloo ranks",
    "train/release/publish.py": "tests/services_training/test_train_services.py publishes to S3",
    "train/runs/cluster_lock.py": "tests/ray/test_claim.py holds it against a second job",
    "train/runs/trainer.py": "tests/services_training/test_train_services.py trains with it",
    "train/runs/worker.py": "tests/ray/test_train_ray.py trains on Ray Train's workers with it",
    "train/strategies/ddp.py": "tests/ranks/test_strategy.py trains with it on gloo ranks",
    "train/strategies/fsdp.py": "tests/ranks/test_strategy.py trains with it on gloo ranks",
    "tune/mlflow_trials.py": "tests/services_training/test_tune.py reads trials in MLflow",
    "tune/sweep_driver.py": "tests/ray/test_tune_ray.py drives sweeps on Ray Tune",
    "tune/trial.py": "tests/ray/test_tune_ray.py runs trials as Ray Tune's actors",
    "tune/tuner.py": "tests/ray/test_tune_ray.py runs trials on nodes with it",
    "serve/api/app.py": "tests/services/test_front_door.py asks the whole app",
    "serve/api/operations.py": "tests/services/test_front_door.py calls each operation by every role",
    "serve/api/services.py": "tests/services/test_front_door.py asks the whole app",
    "serve/control/background_sync.py": "tests/services/test_rollout_alerts.py sends alerts with it",
    "serve/control/controller.py": "tests/services/test_rollouts.py steps through rollouts in PostgreSQL",
    "serve/control/deploy.py": "tests/services/test_environments.py lets versions in",
    "serve/control/rollout_events.py": "tests/services/test_rollout_alerts.py claims events in PostgreSQL",
    "serve/control/rollout_store.py": "tests/services/test_rollouts.py keeps rollouts in PostgreSQL",
    "serve/control/staged_versions.py": "tests/services/test_routes.py stages versions in PostgreSQL",
    "serve/control/start.py": "tests/services/test_rollouts.py sets weights in PostgreSQL",
    "serve/dependencies/postgres.py": "tests/services/test_ledger.py runs statements in PostgreSQL",
    "serve/explanation/llm.py": "tests/model/test_llm.py generates with a real language model",
    "serve/front_door/explanation_service.py": "tests/services/test_front_door.py streams explanations",
    "serve/front_door/heatmap_service.py": "tests/services/test_front_door.py asks for heatmaps",
    "serve/front_door/replica_client.py": "tests/ray/test_version_handle.py asks replicas of Ray Serve with it",
    "serve/ledger/journal_replay.py": "tests/services/test_front_door_away.py replays a journal",
    "serve/ledger/reader.py": "tests/services/test_ledger.py reads new rows in PostgreSQL",
    "serve/ledger/writer.py": "tests/services/test_ledger.py writes records to PostgreSQL",
    "serve/routing/desired_state.py": "tests/services/test_routes.py changes routes in PostgreSQL",
    "jobs/bench/etl_inside.py": "`make bench ONLY=etl_vs_process_pool`, inside its platform",
    "jobs/bench/process_pool.py": "`make bench ONLY=etl_vs_process_pool`, as the peer",
    "jobs/bench/ray_nodes.py": "`make bench ONLY=etl_scaling`, on several Ray nodes",
    "jobs/bench/serve_apps.py": "`make bench ONLY=front_door_cpu`, in Ray Serve without models",
    "jobs/bench/serve_peers.py": "`make bench ONLY=serve_throughput`, as the peer's server",
    "jobs/bench/train.py": "`make bench ONLY=train_vs_torchrun`, on a platform of its own",
    "jobs/drill/job.py": "tests/jobs/test_wrong_arguments.py parses its arguments; it plays on a running platform",
}
"""Modules without a test file of their name, with what tests them."""


def large_modules(root: Path = ROOT) -> list[str]:
    """Return the modules of the rooms over `MIN_LINES` lines, as paths below the root."""
    paths = (
        path
        for room in ROOMS
        for path in sorted((root / room).rglob("*.py"))
        if "migrations" not in path.parts
    )
    return [str(path.relative_to(root)) for path in paths if len(path.read_text().splitlines()) > MIN_LINES]


def is_mirrored(module: str, root: Path = ROOT) -> bool:
    """Return whether a test file has the module's name, at its place or in a tier of its own."""
    path = Path(module)
    name = path.parent.name if path.name == "__main__.py" else path.stem
    places = (path.parent, *(Path(tier) for tier in TIERS))
    return any((root / "tests" / place / f"test_{name}.py").exists() for place in places)


def test_every_module_has_its_test_file_or_a_reason() -> None:
    missing = [module for module in large_modules() if not is_mirrored(module)]
    assert sorted(set(missing) - set(ELSEWHERE)) == []


def test_the_list_of_reasons_is_short_and_true() -> None:
    modules = large_modules()
    assert sorted(module for module in ELSEWHERE if module not in modules or is_mirrored(module)) == []
    named = [file for reason in ELSEWHERE.values() for file in re.findall(r"tests/\S+\.py", reason)]
    assert [file for file in named if not (ROOT / file).exists()] == []
    assert all(ELSEWHERE.values())
    assert 1 - len(ELSEWHERE) / len(modules) >= MIN_SHARE


def test_a_module_without_a_test_is_found(tmp_path: Path) -> None:
    for file, lines in (("serve/large.py", 41), ("serve/small.py", 40), ("serve/api/tested.py", 41)):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("pass\n" * lines)
    (tmp_path / "tests/serve/api").mkdir(parents=True)
    (tmp_path / "tests/serve/api/test_tested.py").touch()
    modules = large_modules(tmp_path)
    assert [module for module in modules if not is_mirrored(module, tmp_path)] == ["serve/large.py"]
