"""Fine-tune the language model that writes explanations, compare it on findings it was not taught, and register it.

Registered as `xray-llm` without alias; with `--promote` it becomes the champion when it passes the checker at least as
often as the present one, else the job halts with 3. `--table` measures what the settings cost and registers nothing.
"""

import functools
import hashlib
import inspect
import json
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cluster import progress
from cluster.objects import ObjectStore
from cluster.releases.registry import LLM, Registry
from cluster.settings import Settings
from jobs.runtime import entry
from serve.explanation import checker as explanation_check
from serve.explanation import normaliser, training_pairs
from serve.explanation import physician_notes as notes
from serve.explanation.finding import Finding, prompt
from serve.explanation.pass_rate import Audit, audit
from train.llm import merge, trainer
from train.llm import registry as llm_registry
from train.llm.base_weights import convert
from train.llm.config import LlmConfig
from train.llm.trainer import Learned
from train.runs import run_store
from train.tracking import mlflow_runs

UNSEEN_SEED = 1


@dataclass(frozen=True, kw_only=True)
class Arguments:
    base: str | None = None
    """Version of `xray-llm` to start from; default: the newest that was not fine-tuned itself."""
    pairs: int = 240
    """Findings that are drawn to learn from, with an answer made of templates."""
    notes: Path | None = None
    """Physicians' explanations to learn from too: a JSON object a line, see docs/llm.md."""
    unseen: int = 60
    """Findings that are never taught, which the model is asked about before and after."""
    promote: bool = False
    """Make the new version the champion, when it is no worse than before."""
    run: str | None = None
    """Name of the run to start or to continue; default: made of data and settings."""
    fresh: bool = False
    """Start anew even where a run of this name exists."""
    table: bool = False
    """Only measure: time and memory of precision x accumulation x method, as a table; needs no platform."""
    table_steps: int = 2
    """Updates that are measured of each setting, after one that is not."""
    finetune: LlmConfig = field(default_factory=LlmConfig)

    def __post_init__(self) -> None:
        for name in ("pairs", "unseen", "table_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


def pairs_of(arguments: Arguments) -> tuple[list[tuple[str, str]], dict[str, Any]]:
    """Return question and answer pairs to teach, and the counts of the physicians' notes."""
    drawn = training_pairs.pairs(training_pairs.taught(arguments.pairs, seed=arguments.finetune.seed))
    if arguments.notes is None:
        return drawn, {}
    read = notes.read(arguments.notes)
    for line, codes in read.refused.items():
        sys.stderr.write(f"{arguments.notes}, line {line} is left out: {', '.join(codes)}\n")
    counts = {"taken": len(read.pairs), "refused": len(read.refused), "held_out": read.held_out}
    return [*drawn, *read.pairs], {"notes": counts}


@dataclass(frozen=True, kw_only=True)
class Asker:
    """Asks models about the same unseen findings, each model once: the answers' audit is kept."""

    store: ObjectStore
    findings: list[Finding]
    threads: int
    """Of torch; more than one only help where nothing else wants the processors."""

    def ask(self, bundle_key: str, directory: Path, note: str) -> Audit:
        """Audit a bundle's model, whose files lie in `directory`."""
        key = f"audits/{bundle_key}/{self._question()}.json"
        try:
            return Audit.from_dict(self.store.get_json(run_store.BUCKET, key))
        except FileNotFoundError:
            from serve.explanation.llm import LanguageModel  # seconds of imports

            model = LanguageModel.load(directory, threads=self.threads)
            report = functools.partial(progress.report, "ask", total=len(self.findings), note=note)
            answers = audit(model, self.findings, report)
            self.store.put_json(run_store.BUCKET, key, asdict(answers))
            return answers

    def _question(self) -> str:
        """Hash the questions and the checkers' code: an audit is reused only where both are the same."""
        checkers = (explanation_check, normaliser)
        prompts = [prompt(finding) for finding in self.findings]
        sources = [inspect.getsource(checker) for checker in checkers]
        return hashlib.sha256(json.dumps(prompts + sources).encode()).hexdigest()[:16]


def gate(registry: Registry, version: str, champion: str | None, before: Audit, after: Audit) -> str:
    """Make a version the champion where it is no worse; returns its alias.

    Args:
        champion: the version that it would replace, whose audit `before` is.
    Raises:
        Halted: it is worse.
    """
    if after.passing < before.passing:
        raise entry.Halted(
            f"{LLM} version {version} passes the checker in {after.passing} of {after.findings} texts, version "
            f"{champion} in {before.passing}: it gets no alias; train on more --pairs or for more --finetune.epochs",
            {"model_version": version, "before": asdict(before), "after": asdict(after)},
        )
    if champion not in (None, version):
        registry.set_alias(LLM, "previous", champion)
    registry.set_alias(LLM, "champion", version)
    return "champion"


def promoted(
    settings: Settings, registry: Registry, asker: Asker, version: str, before: Audit, after: Audit
) -> str:
    """Compare with the present champion, which may be neither the base nor have been asked, and replace it.

    Raises:
        Halted: the champion is better.
    """
    champion = registry.version_by_alias(LLM, "champion")
    if champion not in (None, version):
        key = registry.bundle_key(LLM, champion)
        with trainer.base_model(settings, key) as directory:
            before = asker.ask(key, directory, f"version {champion}")
    return gate(registry, version, champion, before, after)


def run_finetune(settings: Settings, arguments: Arguments) -> dict[str, Any]:
    """Fine-tune, register and compare; returns the fields of the job's line. Joins Ray."""
    config, registry, store = arguments.finetune, Registry(settings), ObjectStore(settings)
    base = llm_registry.base_version(registry, arguments.base)
    base_key = registry.bundle_key(LLM, base)
    pairs, note_counts = pairs_of(arguments)
    with (
        tempfile.TemporaryDirectory() as folder,
        trainer.base_model(settings, base_key) as base_directory,
    ):
        entry.join_ray(settings.ray_address)
        learned = trainer.finetune(
            settings,
            config,
            base_key,
            pairs,
            arguments.run,
            fresh=arguments.fresh,
            params={"base_version": base, "git_commit": entry.git_commit()},
        )
        about = {
            "run": learned.run.key,
            "method": config.method,
            "weights_sha256": learned.trained.weights_sha256,
        }
        merged = merge.export(base_directory, Path(folder), config, learned.weights, about)
        version, bundle_key = llm_registry.release(
            settings, learned, merged, base, config, git_commit=entry.git_commit()
        )
        findings = training_pairs.unseen(arguments.unseen, seed=UNSEEN_SEED)
        asker = Asker(store=store, findings=findings, threads=config.cpus_per_worker)
        before = asker.ask(base_key, base_directory, "before")
        after = asker.ask(bundle_key, merged, "after")
    _track(settings, learned, before, after)
    registry.set_tags(LLM, version, {llm_registry.PASSING_TAG: f"{after.share:.4f}"})
    alias = promoted(settings, registry, asker, version, before, after) if arguments.promote else None
    return {
        "run": learned.run.name,
        "mlflow_run_id": learned.run_id,
        "resumed": learned.resumed,
        "model_version": version,
        "bundle": bundle_key,
        "steps": learned.trained.steps,
        "weights_sha256": learned.trained.weights_sha256,
        "before": asdict(before),
        "after": asdict(after),
        "alias": alias,
        **note_counts,
    }


def _track(settings: Settings, learned: Learned, before: Audit, after: Audit) -> None:
    mlflow = mlflow_runs.client(settings.mlflow_tracking_uri)
    with mlflow_runs.answering(mlflow):
        mlflow_runs.log_figures(mlflow, learned.run_id, before.figures("before") | after.figures("after"))
        mlflow_runs.set_status(mlflow, learned.run_id, "FINISHED")


def run_table(arguments: Arguments) -> dict[str, Any]:
    """Measure on this machine, without Ray; prints the table."""
    from train.llm import cost_table

    pairs, _ = pairs_of(arguments)
    base = convert(llm_registry.checkpoint_directory())
    costs, table = cost_table.table(
        arguments.finetune,
        base,
        pairs,
        steps=arguments.table_steps,
        progress=functools.partial(progress.report, "measure"),
    )
    sys.stdout.write(table)
    return {"rows": len(costs), "table": json.loads(json.dumps([asdict(cost) for cost in costs]))}


def work(arguments: Arguments) -> dict[str, Any]:
    if arguments.table:
        return run_table(arguments)
    return run_finetune(Settings.from_env(), arguments)


if __name__ == "__main__":
    entry.main("finetune_llm", Arguments, work)
