"""A folder of one's own in splits and class folders, also zipped (`train.zip`, `val.zip`, `test.zip`).

A class folder is called as a class of the taxonomy or one of its synonyms. `data.sources.registry` has unpacked
the zips before. The splits are kept as metadata only: every dataset version draws its own, by patient.
"""

from pathlib import Path

from data.sources import layout
from data.sources.dataset_card import Card
from data.sources.manifest import Manifest
from data.taxonomy import taxonomy

CARD = Card(
    name="class-folders",
    title="class folders of your own",
    license="unknown: the folder does not say",
    conditions="Ask whoever made the folder; a manifest.csv can name a licence for each image.",
    citation="none",
    homepage="",
    layout="{train,val,test}/CLASS, or {train,val,test}.zip with class folders; CLASS is a class or a synonym",
    labels={},
)
SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


def list_images(folder: Path) -> Manifest:
    """List the images; see `data.sources.registry.Source`."""
    known = {name.lower(): name for name in (*taxonomy().names, *taxonomy().synonyms)}
    listing = layout.Listing.find(
        CARD,
        folder,
        lambda inside_root: any(layout.inner(inside_root, split) for split in SPLITS),
        "no folder in it is called train, val or test",
    )
    root = listing.root
    for inside in layout.folders(CARD, root):
        if inside.name.lower() not in SPLITS:
            raise layout.refused(CARD, root, f"{inside.name!r} is no split")
        for images in layout.folders(CARD, inside):
            if images.name.lower() not in known:
                says = f"{images.name!r} in {inside.name} is no class; the classes are {', '.join(known.values())}"
                raise layout.refused(CARD, root, says)
            for file in layout.images(CARD, images):
                split = SPLITS[inside.name.lower()]
                listing.add(file, known[images.name.lower()], further={"published_split": split})
    return listing.done(public_paths=False)
