"""The edge runner as a program."""

import json
import types
from pathlib import Path

import pytest

from data.imaging.preprocess import to_pixels
from data.model_card import ModelCard
from serve.classifier.answer import Classified
from serve.classifier.answer import answer as served_answer
from tests.train.release.edge_folders import PIXELS, drawn, run


def test_a_program_without_the_project_says_what_serving_says(
    module: types.ModuleType, folder: Path, tmp_path: Path
) -> None:
    card = ModelCard.read(folder / "card.json")
    predictor = module.Predictor(folder)
    blobs = drawn()[:4]
    paths = []
    for nth, blob in enumerate(blobs):
        paths.append(tmp_path / f"{nth}.img")
        paths[-1].write_bytes(blob)
    ended = run(folder, *map(str, paths))
    assert ended.returncode == 0, ended.stderr
    told = [json.loads(line) for line in ended.stdout.splitlines()]
    assert [one["file"] for one in told] == [str(path) for path in paths]
    for one, blob in zip(told, blobs, strict=True):
        logits_NK = predictor.logits(to_pixels(blob, PIXELS)[None])
        probabilities_K = module.probabilities(logits_NK, card.calibration.temperature)[0]
        expected = served_answer(Classified(probabilities_C=probabilities_K), card)
        for name in (
            "label", "confidence", "abstained", "abstained_reason", "prediction_set", "probabilities",
        ):  # fmt: skip
            assert one[name] == getattr(expected, name)
        assert one["model"] == {"name": "xray-vit", "version": "7", "variant": "edge"}
    assert len({json.dumps(one["probabilities"]) for one in told}) > 1


def test_one_bad_image_among_good_ones_is_told_and_ends_in_1(folder: Path, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    good.write_bytes(drawn()[0])
    bad.write_bytes(b"hello there")
    ended = run(folder, str(bad), str(good), str(tmp_path / "absent.png"))
    told = [json.loads(line) for line in ended.stdout.splitlines()]
    assert ended.returncode == 1
    assert told[0]["reason"] == "unknown_type"
    assert "label" in told[1]
    assert told[2]["error"] == "the file cannot be read: No such file or directory"


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("model.int8.onnx", b"\x08\x0aother", "was changed: its SHA-256 is not the one in card.json"),
        ("model.int8.onnx", None, "model.int8.onnx beside predict.py cannot be read"),
        ("card.json", b"{", "card.json beside predict.py cannot be read"),
    ],
)
def test_a_folder_that_is_not_whole_is_refused_in_one_line(
    folder: Path, tmp_path: Path, name: str, content: bytes | None, says: str
) -> None:
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(content)
    ended = run(tmp_path, "x.png")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert says in ended.stderr
    assert ended.stderr.count("\n") == 1
