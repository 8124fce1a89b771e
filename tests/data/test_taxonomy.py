"""The one file of classes: what it says, how a mistake in it is told, and that another file needs no code."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from data.taxonomy import TAXONOMY_PATH, TaxonomyError, load, taxonomy
from train.evaluation.gates import Gates

ROOT = Path(__file__).resolve().parents[2]
TEN = (
    *("normal", "bacterial_pneumonia", "viral_pneumonia", "covid19", "tuberculosis", "lung_opacity"),
    *("fungal_pneumonia", "other_lung", "bone_fracture", "bone_normal"),
)
OTHER = """
classes:
  - {name: healthy, meaning: nothing, region: chest, finding: false, soon_above: null, urgent_above: null}
  - {name: pneumonia, meaning: sick, region: chest, finding: true, required: true, soon_above: 0, urgent_above: 0.5}
  - {name: broken, meaning: "a broken bone", region: limb, finding: true, soon_above: 0.3, urgent_above: null}
synonyms: {normal: healthy, bacterial_pneumonia: pneumonia, viral_pneumonia: pneumonia}
"""
SCRIPT = """
import json, sys
from pathlib import Path
from data.dataset import rows as dataset_rows
from data.sources import manifest
from data.synthetic import generator
from data.dataset.rows import Candidate
from data.sources import registry
from data.taxonomy import taxonomy
from serve.classifier.triage import triage
from train.evaluation.gates import Gates

own, kermany = manifest.read(Path(sys.argv[1])), registry.find("kermany-pneumonia").list_images(Path(sys.argv[2]))
known = {name: None for name in ("sex", "age", "view", "site")}
candidates = [
    Candidate(source=row.source, sha256=f"{n}", label=row.label, patient=f"{n}", group_key=f"{n}",
              pixel_sha256=f"{n}", **known)
    for n, row in enumerate((*own.rows, *kermany.rows))
]
rows = dataset_rows.assemble(candidates, taxonomy().names, key=b"k" * 32).rows
def told(work):
    try:
        work()
    except ValueError as error:
        return str(error)
print(json.dumps({
    "indices": sorted({(row.label, row.label_index) for row in rows}),
    "counts": {name: sum(split[name] for split in dataset_rows.counts(rows, taxonomy().names).values())
               for name in taxonomy().names},
    "triage": triage({"pneumonia": 0.6}, abstained=False),
    "required": Gates().required_classes,
    "fractures": told(lambda: registry.find("bone-fracture").list_images(Path(sys.argv[3]))),
    "drawing": told(lambda: generator.generate(generator.SyntheticConfig(images=3), Path(sys.argv[4]))),
}))
"""


def test_there_are_exactly_ten_classes_in_the_order_of_the_models_outputs() -> None:
    assert taxonomy().names == TEN
    assert taxonomy().translate(" bone_no_fracture ") == "bone_normal"
    assert taxonomy().translate("flu") is None
    assert set(Gates().required_classes) == set(TEN[:5])


def test_no_other_file_of_the_rooms_lists_the_classes() -> None:
    files = [
        path
        for room in ("cluster", "data", "train", "tune", "serve", "jobs")
        for path in (ROOT / room).rglob("*.py")
    ]
    drawn = {"findings.py", "draw.py"}  # what can be drawn is theirs to say
    mapped = {path.name for path in (ROOT / "data/sources").glob("*.py")}  # one source's labels → ours
    naming = {
        path.name
        for path in files
        if sum(f'"{name}"' in path.read_text() for name in TEN) > 1 and path.name not in drawn | mapped
    }
    assert naming == set()


def test_another_taxonomy_goes_from_manifest_to_logical_rows_and_gates_without_a_change_of_code(
    tmp_path: Path, miniature: Callable[[str, Path], Path]
) -> None:
    site = tmp_path / "site"
    for room in ("cluster", "data", "serve", "train"):
        shutil.copytree(ROOT / room, site / room, ignore=shutil.ignore_patterns("__pycache__"))
    (site / "data/taxonomy.yaml").write_text(OTHER)
    own = tmp_path / "own"
    own.mkdir()
    (own / "manifest.csv").write_text(
        "path,label,source,patient_id,sex,age,view,license,sha256\n"
        "a.png,broken,clinic,,,,,,\nb.png,normal,clinic,,,,,,\n"
    )
    folders = [
        own,
        miniature("kermany-pneumonia", tmp_path / "set"),
        miniature("bone-fracture", tmp_path / "bones"),
    ]
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT, *map(str, folders), str(tmp_path / "drawn")],
        cwd=site,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    told: dict[str, Any] = json.loads(ran.stdout)
    assert told["indices"] == [["broken", 2], ["healthy", 0], ["pneumonia", 1]]
    assert told["counts"] == {"healthy": 7, "pneumonia": 6, "broken": 1}
    assert (told["triage"], told["required"]) == ("urgent", ["pneumonia"])
    assert "no class 'bone_fracture', which bone-fracture calls" in told["fractures"]
    assert "cannot draw broken, healthy, pneumonia" in told["drawing"]


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ("", "no list `classes`"),
        ("classes: []", "it has no class"),
        ("classes: [7]", "class 1 of the list lacks"),
        ("classes: [", "cannot be read as YAML"),
        (OTHER.replace("region: limb, ", ""), "class 3 of the list lacks region"),
        (OTHER.replace("region: limb", "colour: red"), "lacks region, has an unknown colour"),
        (OTHER.replace("region: limb", "region: head"), "'broken': its region is none of chest, limb"),
        (OTHER.replace("name: broken", "name: no"), "its name is no text"),
        (OTHER.replace("name: broken", "name: healthy"), "names healthy twice"),
        (OTHER.replace("finding: true", "finding: maybe"), "finding is neither true nor false"),
        (OTHER.replace("soon_above: 0.3", "soon_above: 30"), "no number within 0..1"),
        (OTHER.replace("required: true", "required: 1"), "required is neither"),
        (OTHER.replace("normal: healthy", "normal: well"), "synonyms for classes that it lacks: well"),
        (
            OTHER.replace("synonyms: {", "synonyms: [{").replace("pneumonia}", "pneumonia}]"),
            "`synonyms` is no list",
        ),
    ],
)
def test_a_mistake_in_the_file_is_one_line(tmp_path: Path, change: str, part: str) -> None:
    file = tmp_path / "taxonomy.yaml"
    file.write_text(change)
    with pytest.raises(TaxonomyError) as caught:
        load(file)
    assert part in str(caught.value)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_without_synonyms_will_do_and_a_missing_one_will_not(tmp_path: Path) -> None:
    raw = yaml.safe_load(TAXONOMY_PATH.read_text())
    del raw["synonyms"]
    (tmp_path / "taxonomy.yaml").write_text(yaml.safe_dump(raw))
    assert load(tmp_path / "taxonomy.yaml").names == TEN
    with pytest.raises(TaxonomyError, match="cannot be read"):
        load(tmp_path / "none.yaml")
