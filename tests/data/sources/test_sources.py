"""Every adapter on a miniature of its published layout, and the one line with which it refuses another."""

import csv
import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import openpyxl
import pytest

from data.sources import archives, manifest, registry
from data.sources.dataset_card import Card, Download
from data.sources.manifest import Manifest, ManifestError, ManifestRow

ROOT = Path(__file__).resolve().parents[3]
XRAYS = ROOT.parent / "shared" / "data" / "xrays" / "dicom"
Miniature = Callable[[str, Path], Path]
NAMES = tuple(registry.SOURCES)
PUBLISHED = tuple(name for name in NAMES if registry.SOURCES[name].CARD.downloads)


@pytest.fixture
def listed(miniature: Miniature, tmp_path: Path) -> Callable[[str], Manifest]:
    return lambda name: listing(name, miniature(name, tmp_path / "set"))


def listing(name: str, folder: Path) -> Manifest:
    scratch = folder.parent / f"scratch-{len(list(folder.parent.iterdir()))}"
    scratch.mkdir()
    return registry.find(name).list_images(archives.with_splits(folder, scratch))


def refusal(name: str, folder: Path) -> str:
    with pytest.raises(ManifestError) as caught:
        listing(name, folder)
    message = str(caught.value)
    assert "\n" not in message
    assert "Nothing was stored" in message
    return message


def by_name(manifest: Manifest) -> dict[str, ManifestRow]:
    return {Path(row.path).name: row for row in manifest.rows}


def labels(manifest: Manifest) -> Counter[str]:
    return Counter(row.label for row in manifest.rows)


@pytest.mark.parametrize("name", NAMES)
def test_every_source_lists_its_miniature_in_the_same_order_each_time(
    name: str, miniature: Miniature, tmp_path: Path
) -> None:
    folder = miniature(name, tmp_path / "set")
    first, again = listing(name, folder), listing(name, folder)
    assert [row.path for row in first.rows] == [row.path for row in again.rows]
    assert len({row.path for row in first.rows}) == len(first.rows)
    assert all(row.license for row in first.rows)
    assert not any(
        part in row.path for row in first.rows for part in ("MACOSX", "Thumbs", "mask", "DS_Store")
    )
    assert first.by_hand == (name == "dicom-folder")
    assert first.public_paths == (name in PUBLISHED)


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_and_an_empty_folder_are_one_clear_line(name: str, tmp_path: Path) -> None:
    assert "does not exist" in refusal(name, tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert str(tmp_path / "empty") in (refusal(name, tmp_path / "empty"))


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_card_maps_its_labels_onto_classes_and_tells_its_terms(name: str) -> None:
    card = registry.SOURCES[name].CARD
    assert all(card.class_of(label) for label in card.labels)
    told = "\n".join(card.summary())
    assert all(part in told for part in (card.title, card.license, card.citation, card.homepage))


def test_an_address_without_encryption_and_a_name_with_a_path_are_refused_in_a_card() -> None:
    with pytest.raises(ValueError, match="no https"):
        Download(url="http://example.org/x.zip", page="", file_name="x.zip", access="open")
    with pytest.raises(ValueError, match="plain name"):
        Download(url="https://example.org/x.zip", page="", file_name="../x.zip", access="open")


def test_kermany_tells_the_cause_from_the_name_and_restarts_its_persons_in_test(
    listed: Callable[[str], Manifest],
) -> None:
    found = listed("kermany-pneumonia")
    rows = by_name(found)
    assert labels(found) == {"normal": 6, "bacterial_pneumonia": 4, "viral_pneumonia": 2}
    one, two = rows["person1_bacteria_1.jpeg"], rows["person1_bacteria_2.jpeg"]
    assert one.patient_id == two.patient_id == "train-person1"
    assert rows["person1_virus_6.jpeg"].patient_id == "test-person1"
    assert rows["person1946_bacteria_4874.jpeg"].patient_id == "train-person1946"
    assert rows["IM-0115-0001.jpeg"].patient_id == rows["IM-0115-0002.jpeg"].patient_id == "IM-0115"
    assert rows["NORMAL2-IM-0329-0001.jpeg"].patient_id == "NORMAL2-IM-0329"
    assert {(row.view, row.age_range_years, row.sex) for row in found.rows} == {("AP", (1, 5), None)}
    assert rows["person3_virus_15.JPEG"].further == {"published_split": "train"}
    assert any("chest_xray/chest_xray" in note for note in found.notes)


def test_kermany_in_the_publishers_own_third_version_has_other_names(
    miniature: Miniature, tmp_path: Path
) -> None:
    root = miniature("kermany-pneumonia", tmp_path / "set") / "chest_xray"
    shutil.rmtree(root / "val")
    shutil.rmtree(root / "chest_xray")
    (root / "train/PNEUMONIA/person1_bacteria_1.jpeg").rename(
        root / "train/PNEUMONIA/BACTERIA-7422-0001.jpeg"
    )
    (root / "test/PNEUMONIA/person1_virus_6.jpeg").rename(root / "test/PNEUMONIA/VIRUS-7422-0002.jpeg")
    (root / "train/NORMAL/IM-0115-0001.jpeg").rename(root / "train/NORMAL/NORMAL-28501-0001.jpeg")
    (root / "train/NORMAL/IM-0115-0002.jpeg").rename(root / "train/NORMAL/a film.jpeg")
    rows = by_name(listing("kermany-pneumonia", root))
    bacterial, viral = rows["BACTERIA-7422-0001.jpeg"], rows["VIRUS-7422-0002.jpeg"]
    assert (bacterial.label, viral.label) == ("bacterial_pneumonia", "viral_pneumonia")
    assert bacterial.patient_id == viral.patient_id == "number-7422"
    assert rows["NORMAL-28501-0001.jpeg"].label == rows["a film.jpeg"].label == "normal"
    assert rows["a film.jpeg"].patient_id is None


def test_kermany_refuses_a_pneumonia_without_a_cause_and_a_strange_class(
    miniature: Miniature, tmp_path: Path
) -> None:
    root = miniature("kermany-pneumonia", tmp_path / "set") / "chest_xray"
    file = root / "train/PNEUMONIA/person1_bacteria_1.jpeg"
    file.rename(file.with_name("person1_1.jpeg"))
    assert "person1_1.jpeg" in refusal("kermany-pneumonia", tmp_path / "set")
    file.with_name("person1_1.jpeg").rename(file)
    (root / "train/COVID").mkdir()
    assert "unknown folder 'COVID'" in refusal("kermany-pneumonia", tmp_path / "set")
    (root / "train/COVID").rmdir()
    shutil.rmtree(root / "test/NORMAL")
    assert "lacks the folder 'NORMAL'" in refusal("kermany-pneumonia", tmp_path / "set")


def test_covid_radiography_leaves_masks_out_and_tells_where_sheets_and_folders_differ(
    listed: Callable[[str], Manifest],
) -> None:
    found = listed("covid-radiography")
    rows = by_name(found)
    assert labels(found) == {"covid19": 3, "lung_opacity": 3, "normal": 4, "viral_pneumonia": 3}
    lost = rows["COVID-3.png"]
    assert not lost.file.exists()
    assert rows["COVID-1.png"].further == {
        "origin": "sirm.org",
        "url": "https://sirm.org/category/senza-categoria/covid-19/",
    }
    assert rows["Normal-1.png"].further["origin"] == "www.kaggle.com"
    assert rows["Normal-10192.PNG"].further == {}
    assert found.notes == (
        "images that only COVID.metadata.xlsx names: 1",
        "images of Normal that Normal.metadata.xlsx does not name: 1",
    )


def test_covid_radiography_does_without_a_sheet_and_not_without_images(
    miniature: Miniature, tmp_path: Path
) -> None:
    root = miniature("covid-radiography", tmp_path / "set") / "COVID-19_Radiography_Dataset"
    (root / "Viral Pneumonia.metadata.xlsx").unlink()
    found = listing("covid-radiography", root)
    assert any("Viral Pneumonia.metadata.xlsx is missing" in note for note in found.notes)
    shutil.rmtree(root / "COVID/images")
    assert "lacks the folder 'images'" in refusal("covid-radiography", root)


@pytest.mark.parametrize(
    ("blob", "part"),
    [
        (b"PK\x03\x04 broken", "not a readable xlsx"),
        (b"a,b\n", "not a readable xlsx"),
        (None, "no column 'FILE NAME'"),
    ],
)
def test_a_sheet_that_is_none_is_refused(
    blob: bytes | None, part: str, miniature: Miniature, tmp_path: Path
) -> None:
    root = miniature("tb-chest", tmp_path / "set") / "TB_Chest_Radiography_Database"
    if blob is None:
        openpyxl.Workbook().save(root / "Normal.metadata.xlsx")
    else:
        (root / "Normal.metadata.xlsx").write_bytes(blob)
    assert part in refusal("tb-chest", tmp_path / "set")


def test_tb_chest_reads_two_flat_class_folders(listed: Callable[[str], Manifest]) -> None:
    found = listed("tb-chest")
    assert labels(found) == {"normal": 4, "tuberculosis": 4}
    assert {row.patient_id for row in found.rows} == {None}
    assert len(found.notes) == 4


def test_covid_qu_ex_reads_both_parts_and_bimcvs_names(miniature: Miniature, tmp_path: Path) -> None:
    folder = miniature("covid-qu-ex", tmp_path / "set")
    found = listing("covid-qu-ex", folder)
    assert labels(found) == {"covid19": 9, "lung_opacity": 9, "normal": 9}
    told = [row for row in found.rows if row.patient_id]
    assert {(row.patient_id, row.view) for row in told} == {("sub-S09345", "AP")}
    assert {row.further["published_split"] for row in found.rows} == {"train", "val", "test"}
    assert Counter(row.further["part"] for row in found.rows) == {"lung": 18, "infection": 9}
    shutil.rmtree(folder / "Infection Segmentation Data")
    alone = listing("covid-qu-ex", folder)
    assert (len(alone.rows), alone.notes) == (18, ("Infection Segmentation Data is not there",))


def test_bone_fracture_keeps_boxes_and_the_copies_of_an_image_together(
    listed: Callable[[str], Manifest],
) -> None:
    found = listed("bone-fracture")
    assert labels(found) == {"bone_fracture": 8, "bone_normal": 4}
    copies = [row for row in found.rows if "image1_134_png" in row.path]
    assert len(copies) == 3
    assert {row.patient_id for row in copies} == {"image1_134_png"}
    assert copies[0].source_label == "fingers positive; wrist positive"
    assert json.loads(copies[0].further["boxes"]) == [
        {"class": "wrist positive", "box": [0.25, 0.25, 0.5, 0.75]},
        {"class": "fingers positive", "box": [0.4, 0.4, 0.6, 0.6]},
    ]
    edge = next(row for row in found.rows if "image1_10_png" in row.path)
    assert json.loads(edge.further["boxes"])[0]["box"] == [0.1, 0.2, 1, 0.4]
    empty = [row for row in found.rows if row.label == "bone_normal"]
    assert all(row.source_label == "no annotation" and "boxes" not in row.further for row in empty)
    assert found.notes == ("images without a label file, left out because nobody knows their label: 1",)


@pytest.mark.parametrize(
    "line",
    [
        "7 0.5 0.5 0.1 0.1",
        "0 0.5 0.5",
        "0 0.5 nan 0.1 0.1",
        "0 0.5 0.5 1.5 0.1",
        "-1 0 0 0 0",
        "x",
        "0 a b c d",
    ],
)
def test_a_label_line_that_is_none_is_refused_with_its_place(
    line: str, miniature: Miniature, tmp_path: Path
) -> None:
    root = miniature("bone-fracture", tmp_path / "set") / "BoneFractureYolo8"
    file = next((root / "test/labels").iterdir())
    file.write_text(f"2 0.5 0.5 0.25 0.25\n{line}\n")
    assert f"{file.name} line 2 is no label" in refusal("bone-fracture", tmp_path / "set")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("names: [elbow positive, tibia]", "'tibia'"),
        ("nc: 7", "no class names"),
        ("names: 7", "no class names"),
        ("[", "no class names"),
    ],
)
def test_a_data_yaml_that_is_another_is_refused(
    text: str, part: str, miniature: Miniature, tmp_path: Path
) -> None:
    root = miniature("bone-fracture", tmp_path / "set") / "BoneFractureYolo8"
    (root / "data.yaml").write_text(text)
    assert part in refusal("bone-fracture", tmp_path / "set")


def test_class_names_by_number_are_read_too(miniature: Miniature, tmp_path: Path) -> None:
    root = miniature("bone-fracture", tmp_path / "set") / "BoneFractureYolo8"
    (root / "data.yaml").write_text("names: {1: wrist positive, 0: elbow positive}")
    shutil.rmtree(root / "train/labels")
    (root / "train/labels").mkdir()
    for file in [*(root / "valid/labels").iterdir(), *(root / "test/labels").iterdir()]:
        file.write_text("1 0.5 0.5 0.1 0.1")
    assert {row.source_label for row in listing("bone-fracture", root).rows} == {"wrist positive"}


def test_dicom_headers_tell_the_patient_and_labels_csv_the_class(
    listed: Callable[[str], Manifest], caplog: pytest.LogCaptureFixture
) -> None:
    found = listed("dicom-folder")
    assert caplog.text == ""
    first, second, third, lost = found.rows
    assert (first.label, first.source, first.license, first.line) == ("tuberculosis", "clinic-a", "ask us", 2)
    assert (first.patient_id, first.sex, first.age_years, first.view) == ("MRN-4711", "F", 61.0, "PA")
    assert (second.patient_id, second.age_years, second.license) == ("MRN-4711", 60.0, "unknown")
    assert (third.patient_id, third.sex, third.age_years, third.source) == (None, None, None, "dicom-folder")
    assert first.further == {"modality": "DX", "body_part": "CHEST", "photometric": "MONOCHROME2"}
    assert not lost.file.exists()
    assert found.notes == (
        "files that are no DICOM images, not read: 2",
        "DICOM files without a readable UID or a row by path, left out: 1",
        "rows of labels.csv with a UID that no file has: 1",
    )
    assert found.where(first) == "line 2 of labels.csv"


def test_dicom_files_without_a_label_are_refused_and_nobody_is_named(
    miniature: Miniature, tmp_path: Path
) -> None:
    folder = miniature("dicom-folder", tmp_path / "set")
    text = (folder / "labels.csv").read_text()
    (folder / "labels.csv").write_text(text.replace("normal,,1.2.3.3,,\n", ""))
    message = refusal("dicom-folder", folder)
    assert "1 of 4 DICOM files in the folder have no row" in message
    (folder / "labels.csv").unlink()
    without = refusal("dicom-folder", folder)
    assert "there is no labels.csv" in without
    assert not any(secret in message + without for secret in ("Doe", "DOE", "MRN", "1.2.3.3"))


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("label\nnormal\n", "needs the columns label and path or sop_instance_uid"),
        ("label,path\nflu,DOE_JANE/IM1\n", "line 2: unknown label. Known labels"),
        ("label,path\nnormal,../x\n", "stay below its folder"),
        ("label,path\nnormal,\n", "neither a path nor a UID"),
        ("label,path\n,DOE_JANE/IM1\n", "no label"),
        ("label,path\nnormal,DOE_JANE/IM1\nnormal,./DOE_JANE/IM1\n", "the same file as line 2"),
        ('label,path\nnormal,"x\n', "no CSV"),
    ],
)
def test_a_labels_csv_that_is_wrong_is_refused_by_its_line(
    text: str, part: str, miniature: Miniature, tmp_path: Path
) -> None:
    folder = miniature("dicom-folder", tmp_path / "set")
    (folder / "labels.csv").write_text(text)
    assert part in refusal("dicom-folder", folder)


def test_zipped_splits_are_unpacked_for_every_source(miniature: Miniature, tmp_path: Path) -> None:
    found = listing("class-folders", miniature("class-folders", tmp_path / "own"))
    assert {(row.label, row.further["published_split"]) for row in found.rows} == {
        ("normal", "train"),
        ("tuberculosis", "train"),
        ("normal", "val"),
        ("bone_normal", "test"),
    }
    root = miniature("bone-fracture", tmp_path / "set") / "BoneFractureYolo8"
    plain = listing("bone-fracture", root)
    for split in ("train", "valid", "test"):
        shutil.make_archive(str(root / split), "zip", root, split)
        shutil.rmtree(root / split)
    zipped = listing("bone-fracture", root)
    assert [(row.path, row.label) for row in zipped.rows] == [(row.path, row.label) for row in plain.rows]


def test_a_manifest_beside_zipped_splits_is_read_as_if_they_were_folders(
    miniature: Miniature, tmp_path: Path
) -> None:
    folder = miniature("class-folders", tmp_path / "own")
    header = "path,label,source,patient_id,sex,age,view,license,sha256"
    (folder / "manifest.csv").write_text(f"{header}\ntrain/normal/a.png,normal,clinic,p1,,,,CC0-1.0,\n")
    (tmp_path / "scratch").mkdir()
    (row,) = manifest.read(archives.with_splits(folder, tmp_path / "scratch")).rows
    assert row.file.read_bytes().startswith(b"\x89PNG")


def test_class_folders_that_are_no_classes_are_refused(miniature: Miniature, tmp_path: Path) -> None:
    (tmp_path / "own/train/cats").mkdir(parents=True)
    assert "'cats' in train is no class" in refusal("class-folders", tmp_path / "own")
    (tmp_path / "own/train/cats").rename(tmp_path / "own/train/normal")
    (tmp_path / "own/more").mkdir()
    assert "'more' is no split" in refusal("class-folders", tmp_path / "own")


def test_a_folder_of_ones_own_may_be_called_after_a_patient_and_no_line_says_so(
    miniature: Miniature, tmp_path: Path
) -> None:
    found = listing("class-folders", miniature("class-folders", tmp_path / "own"))
    assert found.where(found.rows[0]) == "image 1 of class-folders"
    (tmp_path / "named/train/normal/DOE_JANE").mkdir(parents=True)
    assert "DOE" not in refusal("class-folders", tmp_path / "named")


def test_a_link_in_a_dataset_is_refused(miniature: Miniature, tmp_path: Path) -> None:
    root = miniature("tb-chest", tmp_path / "set") / "TB_Chest_Radiography_Database"
    (root / "Normal/Normal-9.png").symlink_to("/etc/passwd")
    assert "holds a link" in refusal("tb-chest", tmp_path / "set")


def test_an_unknown_source_brings_the_list() -> None:
    with pytest.raises(
        ManifestError, match=r"'kermany'; the sources are synthetic, kermany-pneumonia, .*class-folders"
    ):
        registry.find("kermany")


def test_the_docs_have_every_card_as_it_is() -> None:
    text = " ".join((ROOT / "docs/data.md").read_text().split())

    def missing(card: Card) -> list[str]:
        mapped = [f"`{label}` → `{name}`" for label, name in card.labels.items()]
        facts = (card.title, card.license, card.conditions, card.citation, card.homepage)
        told = (*facts, *mapped)
        return [one for one in told if " ".join(one.split()) not in text]

    assert {name: gone for name in NAMES if (gone := missing(registry.SOURCES[name].CARD))} == {}


@pytest.mark.skipif(not XRAYS.exists(), reason="the real X-rays are not here")
def test_real_dicom_headers_tell_what_their_manifest_tells(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(XRAYS, tmp_path / "dicom")
    with (XRAYS / "manifest.csv").open(newline="") as file:
        told = list(csv.DictReader(file))
    lines = [f"{Path(row['path']).name},normal" for row in told]  # what they show is another matter
    (tmp_path / "dicom/labels.csv").write_text("\n".join(["path,label", *lines]))
    rows = by_name(listing("dicom-folder", tmp_path / "dicom"))
    assert len(rows) == len(told) == 20
    for row in told:
        found = rows[Path(row["path"]).name]
        assert (found.sex or "") == row["sex"], row["path"]
        assert row["view"] in (found.view or "", ""), row["path"]
    assert sum(row.patient_id is not None for row in rows.values()) >= 15
    assert caplog.text == ""
