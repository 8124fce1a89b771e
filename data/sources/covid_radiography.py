"""COVID-19 Radiography Database: four class folders, each with images and lung masks, and a sheet for each."""

from pathlib import Path

from data.sources import layout, qatar_sheets
from data.sources.dataset_card import Card, kaggle_download
from data.sources.manifest import Manifest

CARD = Card(
    name="covid-radiography",
    title="COVID-19 Radiography Database",
    license="Data files © original authors (as Kaggle lists it); cite both articles",
    conditions=(
        "No open licence covers the whole: each image stays under the terms of the collection that it was taken "
        "from (PadChest/BIMCV, RSNA, Kermany, SIRM and others). Research use with both citations; do not "
        "pass the images on."
    ),
    citation=(
        "Chowdhury et al.: Can AI help in screening Viral and COVID-19 pneumonia?, IEEE Access 8, 2020, "
        "132665-132676; Rahman et al.: Exploring the Effect of Image Enhancement Techniques on COVID-19 "
        "Detection using Chest X-ray Images, arXiv:2012.02238"
    ),
    homepage="https://www.kaggle.com/datasets/tawsifurrahman/covid19-radiography-database",
    layout=(
        "COVID-19_Radiography_Dataset/{COVID,Lung_Opacity,Normal,Viral Pneumonia}/{images,masks} and "
        "CLASS.metadata.xlsx"
    ),
    labels={
        "COVID": "covid19",
        "Lung_Opacity": "lung_opacity",
        "Normal": "normal",
        "Viral Pneumonia": "viral_pneumonia",
    },
    downloads=(
        kaggle_download("tawsifurrahman/covid19-radiography-database", version=5, name="covid-radiography"),
    ),
)


def list_images(folder: Path) -> Manifest:
    """List the images; see `data.sources.registry.Source`."""
    names = tuple(CARD.labels)
    listing = layout.Listing.find(
        CARD,
        folder,
        lambda inside: sum(layout.inner(inside, name) is not None for name in names) >= 2,
        f"no folder in it holds {', '.join(names)}",
    )
    for name, inside in layout.class_folders(CARD, listing.root, names).items():
        images = layout.class_folders(CARD, inside, ("images",), besides=("masks",))["images"]
        qatar_sheets.add_class(listing, name, images)
    return listing.done()
