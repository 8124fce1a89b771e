import pytest

from cluster.progress import Step, parse, report


def test_a_reported_step_is_parsed_again_also_behind_rays_prefix(capsys: pytest.CaptureFixture[str]) -> None:
    report("train", 3, 10, "loss 1.5")
    line = capsys.readouterr().out
    step = Step(stage="train", done=3, total=10, note="loss 1.5")
    assert parse(line) == step
    assert parse(f"\x1b[36m(RayTrainWorker pid=12)\x1b[0m {line}") == step


def test_a_note_is_optional_and_other_lines_are_no_steps(capsys: pytest.CaptureFixture[str]) -> None:
    report("etl", 0, 1)
    assert parse(capsys.readouterr().out) == Step(stage="etl", done=0, total=1, note="")
    assert parse("Epoch 3/10") is None
    assert parse('{"job": "etl"}') is None
