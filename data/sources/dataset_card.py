"""The card of a dataset: whose it is, how it may be used, what its labels mean, where it is fetched.

Each adapter has one; `jobs.ingest` prints it and `data.downloads.download` fetches what it names. How a dataset came
to be, its demographics and its known defects are in docs/data.md alone. Knows no folder and no file.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from data.sources.manifest import ManifestError
from data.taxonomy import TAXONOMY_PATH, taxonomy

LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, kw_only=True)
class Download:
    """One file of the publisher's."""

    url: str
    """https; the version is part of it where the publisher has versions."""
    page: str
    """Where a person reads the conditions, accepts them, and can fetch the file by hand."""
    file_name: str
    """Its name on our disk, with the version, so that another version is another file."""
    access: Literal["open", "kaggle"]
    """`kaggle`: the address asks for an account's credentials."""
    bytes: int | None = None
    """Size, where it is known beforehand."""
    sha256: str | None = None
    """Where it is known beforehand; else the publisher's own checksum header counts, if there is one."""

    def __post_init__(self) -> None:
        address = urlsplit(self.url)
        if address.scheme != "https" and address.hostname not in LOOPBACK:
            raise ValueError(f"{self.url} is no https address")
        if Path(self.file_name).name != self.file_name or not self.file_name.endswith(".zip"):
            raise ValueError(f"{self.file_name!r} is no plain name that ends in .zip")


def kaggle_download(dataset: str, *, version: int, name: str, sha256: str | None = None) -> Download:
    """Describe one version of a dataset on Kaggle.

    Args:
        dataset: OWNER/NAME in its address.
        name: of the file on our disk, before the version.
    """
    return Download(
        url=f"https://www.kaggle.com/api/v1/datasets/download/{dataset}?datasetVersionNumber={version}",
        page=f"https://www.kaggle.com/datasets/{dataset}",
        file_name=f"{name}-{version}.zip",
        access="kaggle",
        sha256=sha256,
    )


@dataclass(frozen=True, kw_only=True)
class Card:
    name: str
    """What `--source` takes, and the source of the rows in the catalog."""
    title: str
    """What its publisher calls it."""
    license: str
    """Kept with every row."""
    conditions: str
    """What the licence and the publisher ask for, in a sentence or two."""
    citation: str
    homepage: str
    """Where its conditions are read and accepted; empty where there is none."""
    layout: str
    """The folders that the adapter reads."""
    labels: Mapping[str, str]
    """The source's own label → a name of the taxonomy (or a synonym); one that is not here stands for itself."""
    downloads: tuple[Download, ...] = ()

    def class_of(self, label: str) -> str:
        """Return the taxonomy's class that one of the source's labels means.

        Raises:
            ManifestError: the taxonomy of this site has no such class.
        """
        meant = self.labels.get(label, label)
        name = taxonomy().translate(meant)
        if name is None:
            raise ManifestError(
                f"the taxonomy has no class {meant!r}, which {self.name} calls {label!r}: add it, or "
                f" a synonym for it, to {TAXONOMY_PATH.parent.name}/{TAXONOMY_PATH.name}. Nothing was stored"
            )
        return name

    def summary(self) -> tuple[str, ...]:
        """Return the lines that are printed when the source is ingested."""
        return (
            f"{self.name}: {self.title}" + (f" ({self.homepage})" if self.homepage else ""),
            f"licence: {self.license}",
            f"conditions: {self.conditions}",
            f"cite: {self.citation}",
        )
