"""Tuberculosis (TB) Chest X-ray Database: two class folders of PNG files, and a sheet for each."""

from pathlib import Path

from data.sources import layout, qatar_sheets
from data.sources.dataset_card import Card, kaggle_download
from data.sources.manifest import Manifest

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
    layout="TB_Chest_Radiography_Database/{Normal,Tuberculosis} and CLASS.metadata.xlsx",
    labels={"Normal": "normal", "Tuberculosis": "tuberculosis"},
    downloads=(
        kaggle_download("tawsifurrahman/tuberculosis-tb-chest-xray-dataset", version=3, name="tb-chest"),
    ),
)


def list_images(folder: Path) -> Manifest:
    """List the images; see `data.sources.registry.Source`."""
    names = tuple(CARD.labels)
    listing = layout.Listing.find(
        CARD,
        folder,
        lambda inside: layout.inner(inside, "Tuberculosis") is not None,
        "no folder in it holds Tuberculosis",
    )
    for name, images in layout.class_folders(CARD, listing.root, names).items():
        qatar_sheets.add_class(listing, name, images)
    return listing.done()
