"""The pipeline hands its arguments on."""

import json
from dataclasses import asdict

from jobs import pipeline
from jobs.runtime import entry
from train.evaluation.gates import Gates


def test_the_caller_of_a_pipeline_hands_its_gates_on_as_they_are() -> None:
    mine = Gates(reported={"development": ("shortcut",)}, recall_floor=0.4)
    told = entry.parse(pipeline.Arguments, "pipeline", ["--gates", json.dumps(asdict(mine))])
    assert told.gates == mine
