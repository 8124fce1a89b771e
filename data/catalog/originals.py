"""Store original files: sealed before they leave the process, under keys that tell nothing of them.

`ingest` stores them, `etl` reads them back, both set bad ones aside. The key of an object is a keyed hash of
the file's SHA-256, so the same file is stored once, and it is authenticated with the content: a swapped
object does not open.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow.fs

from cluster.arrow_objects import ArrowObjects
from cluster.secrets import keyed_hash, read_key, seal, unseal
from cluster.settings import Settings

RAW = "raw"
QUARANTINE = "quarantine"
LISTED_FROM = 1000
"""Keys from which one listing of the bucket is quicker than a question each."""


@dataclass(frozen=True)
class Originals:
    objects: ArrowObjects
    encryption_key: bytes
    pseudonym_key: bytes

    @classmethod
    def of(cls, settings: Settings, *, patience_s: float = 0.0) -> "Originals":
        """Open the store.

        Args:
            patience_s: how long a store that does not answer is asked again.
        Raises:
            SecretError: a key file is missing or malformed.
        """
        return cls(
            ArrowObjects.of(settings, patience_s=patience_s),
            read_key(settings.encryption_key_path),
            read_key(settings.pseudonym_key_path),
        )

    def key_of(self, sha256: str) -> str:
        """Return the object key of the file with this SHA-256, in either bucket."""
        name = keyed_hash(self.pseudonym_key, "original", sha256)
        return f"originals/{name[:2]}/{name}"

    def put(self, bucket: str, sha256: str, blob: bytes) -> str:
        """Seal and store one file; returns its key."""
        key = self.key_of(sha256)
        self.objects.put(bucket, key, seal(blob, self.encryption_key, context=self._context(bucket, key)))
        return key

    def get(self, key: str, bucket: str = RAW) -> bytes:
        """Read and open one file.

        Raises:
            FileNotFoundError: there is no such object.
            SecretError: it was changed, or sealed with another key.
            ObjectStoreError: the store does not answer.
        """
        sealed = self.objects.get(bucket, key)
        return unseal(sealed, self.encryption_key, context=self._context(bucket, key))

    def present(self, bucket: str, keys: Iterable[str]) -> set[str]:
        """Return the keys whose object exists: one request each, or one listing when they are many."""
        wanted = {self.objects.path(bucket, key): key for key in keys}
        listing = pyarrow.fs.FileSelector(
            self.objects.path(bucket, "originals"), recursive=True, allow_not_found=True
        )
        infos = self.objects.ask(
            f"look into the bucket {self.objects.settings.bucket(bucket)}",
            lambda: self.objects.filesystem.get_file_info(
                list(wanted) if len(wanted) < LISTED_FROM else listing
            ),
        )
        files = {info.path for info in infos if info.type == pyarrow.fs.FileType.File}
        return {key for path, key in wanted.items() if path in files}

    def _context(self, bucket: str, key: str) -> bytes:
        return f"{bucket}/{key}".encode()
