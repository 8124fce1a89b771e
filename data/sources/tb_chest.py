"""Tuberculosis (TB) Chest X-ray Database: two class folders of PNG files, and a sheet for each."""

from pathlib import Path

from data.manifest import Manifest
from data.sources import layout, sheets
from data.sources.card import Card, Download

CARD = Card(
    name="tb-chest",
    title="Tuberculosis (TB) Chest X-ray Database",
    license="Data files © original authors (as Kaggle lists it); cite the article",
    conditions=(
        "No open licence covers the whole: the images stay under the terms of NLM (Montgomery, Shenzhen), the "
        "Belarus TB portal, NIAID and RSNA. Research use with the citation; do not pass the images on. NIAID's "
        "further 2,800 images need an agreement of their own and are not part of this archive."
    ),
    citation=(
        "Rahman et al.: Reliable Tuberculosis Detection using Chest X-ray with Deep Learning, Segmentation and "
        "Visualization, IEEE Access 8, 2020, 191586-191601, doi 10.1109/ACCESS.2020.3031384"
    ),
    homepage="https://www.kaggle.com/datasets/tawsifurrahman/tuberculosis-tb-chest-xray-dataset",
    creation=(
        "Collected by Qatar University and the University of Dhaka: 700 films with tuberculosis (394 NLM, that is "
        "Montgomery and Shenzhen, and 306 Belarus), 3,500 normal ones (406 NLM, 3,094 RSNA)."
    ),
    layout="TB_Chest_Radiography_Database/{Normal,Tuberculosis} and CLASS.metadata.xlsx",
    labels={"Normal": "normal", "Tuberculosis": "tuberculosis"},
    patient_rule="None is published: every image counts as a patient of its own, near-duplicates are found later.",
    demographics="None.",
    defects=(
        "White boxes hide names on about a third of the films with tuberculosis and on no normal one.",
        "Most normal films come from another continent and another machine than those with tuberculosis.",
        "All images are 512 x 512 PNG, some as colour.",
    ),
    overlaps=("covid-radiography", "covid-qu-ex"),
    downloads=(
        Download(
            url=(
                "https://www.kaggle.com/api/v1/datasets/download/tawsifurrahman/"
                "tuberculosis-tb-chest-xray-dataset?datasetVersionNumber=3"
            ),
            page="https://www.kaggle.com/datasets/tawsifurrahman/tuberculosis-tb-chest-xray-dataset",
            file_name="tb-chest-3.zip",
            access="kaggle",
        ),
    ),
)


def list_images(folder: Path) -> Manifest:
    """Raises LayoutError."""
    names = tuple(CARD.labels)
    root, copies = layout.find_root(
        CARD,
        folder,
        lambda one: layout.inner(one, "Tuberculosis") is not None,
        "no folder in it holds Tuberculosis",
    )
    listing = layout.Listing(CARD, root, notes=copies)
    for name, images in layout.class_folders(CARD, root, names).items():
        sheet_name = f"{name}.metadata.xlsx"
        sheet = sheets.read(CARD, root / sheet_name) if (root / sheet_name).exists() else None
        sheets.add_class(listing, name, images, sheet, sheet_name)
    return listing.done()
