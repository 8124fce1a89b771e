"""When an ETL job has begun and when its first block is staged."""

from pathlib import Path

from cluster.progress import Step
from jobs.bench.etl import FirstBlock


def test_the_first_step_and_the_first_staged_block_are_noted_once(tmp_path: Path) -> None:
    with FirstBlock(tmp_path / "etl.log") as console:
        console.step(Step(stage="ingest", done=3, total=9, note=""))
        assert (console.begun_at, console.staged_at) == (0.0, 0.0)
        console.step(Step(stage="etl", done=0, total=9, note=""))
        assert console.begun_at > 0.0 == console.staged_at
        console.step(Step(stage="etl", done=1, total=9, note=""))
        begun_at, staged_at = console.begun_at, console.staged_at
        console.step(Step(stage="etl", done=2, total=9, note=""))
    assert 0.0 < begun_at <= staged_at
    assert (console.begun_at, console.staged_at) == (begun_at, staged_at)
