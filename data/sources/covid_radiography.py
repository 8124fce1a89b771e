"""COVID-19 Radiography Database: four class folders, each with images and lung masks, and a sheet for each."""

from pathlib import Path

from data.manifest import Manifest
from data.sources import layout, sheets
from data.sources.card import Card, Download

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
    creation=(
        "Collected by Qatar University and the University of Dhaka from other collections: COVID 2,473 "
        "PadChest, 183 a German medical school, 559 SIRM, GitHub, Kaggle and Twitter, 400 COVID-CXNet; normal "
        "8,851 RSNA and 1,341 Kermany; lung opacity 6,012 RSNA; viral pneumonia 1,345 Kermany."
    ),
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
    patient_rule="None is published: every image counts as a patient of its own, near-duplicates are found later.",
    demographics="None. Viral pneumonia and some of the normal films are children's (Kermany).",
    defects=(
        "The class is bound to the collection: COVID comes from Spain and the web, opacities from the RSNA "
        "challenge, viral pneumonia from children in Guangzhou.",
        "Several films of one patient are there without a mark.",
        "All images are 299 x 299 PNG, whatever they were before; the sheets say 256*256.",
        "RSNA's labels were read from reports, and lung opacity there means a suspicion of pneumonia.",
        "Names in sheets and folders differ in case; masks have the names of their images.",
    ),
    overlaps=("kermany-pneumonia", "tb-chest", "covid-qu-ex"),
    downloads=(
        Download(
            url=(
                "https://www.kaggle.com/api/v1/datasets/download/tawsifurrahman/covid19-radiography-database"
                "?datasetVersionNumber=5"
            ),
            page="https://www.kaggle.com/datasets/tawsifurrahman/covid19-radiography-database",
            file_name="covid-radiography-5.zip",
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
        lambda one: sum(layout.inner(one, name) is not None for name in names) >= 2,
        f"no folder in it holds {', '.join(names)}",
    )
    listing = layout.Listing(CARD, root, notes=copies)
    for name, inside in layout.class_folders(CARD, root, names).items():
        images = layout.class_folders(CARD, inside, ("images",), besides=("masks",))["images"]
        sheet_name = f"{name}.metadata.xlsx"
        sheet = sheets.read(CARD, root / sheet_name) if (root / sheet_name).exists() else None
        sheets.add_class(listing, name, images, sheet, sheet_name)
    return listing.done()
