"""Original files at rest: sealed before they leave the process, under keys that tell nothing of them.

`ingest` stores them, `etl` reads them back, both set bad ones aside. The key of an object is a keyed hash of
the file's SHA-256, so the same file is stored once, and it is authenticated with the content: a swapped
object does not open.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow.fs

from cluster.objects import ObjectStoreError, arrow_filesystem
from cluster.secrets import keyed_hash, read_key, seal, unseal
from cluster.settings import Settings

RAW = "raw"
QUARANTINE = "quarantine"
LISTED_FROM = 1000
"""Keys from which one listing of the bucket is quicker than a question each."""


@dataclass(frozen=True)
class Originals:
    settings: Settings
    filesystem: pyarrow.fs.FileSystem
    encryption_key: bytes
    pseudonym_key: bytes

    @classmethod
    def of(cls, settings: Settings) -> "Originals":
        """Open the store.

        Raises:
            SecretError: a key file is missing or malformed.
        """
        return cls(
            settings,
            arrow_filesystem(settings),
            read_key(settings.encryption_key_path),
            read_key(settings.pseudonym_key_path),
        )

    def key_of(self, sha256: str) -> str:
        """Object key of the file with this SHA-256, in either bucket."""
        name = keyed_hash(self.pseudonym_key, "original", sha256)
        return f"originals/{name[:2]}/{name}"

    def put(self, bucket: str, sha256: str, blob: bytes) -> str:
        """Seal and store one file; returns its key."""
        key = self.key_of(sha256)
        sealed = seal(blob, self.encryption_key, context=self._context(bucket, key))
        try:
            with self.filesystem.open_output_stream(self._path(bucket, key)) as stream:
                stream.write(sealed)
        except OSError as error:
            raise self._explain(error, f"write to the bucket {self.settings.bucket(bucket)}") from error
        return key

    def get(self, key: str, bucket: str = RAW) -> bytes:
        """Read and open one file.

        Raises:
            FileNotFoundError: there is no such object.
            SecretError: it was changed, or sealed with another key.
            ObjectStoreError: the store does not answer.
        """
        try:
            with self.filesystem.open_input_stream(self._path(bucket, key), buffer_size=0) as stream:
                sealed = stream.readall()
        except FileNotFoundError:
            raise
        except OSError as error:
            raise self._explain(error, f"read from the bucket {self.settings.bucket(bucket)}") from error
        return unseal(sealed, self.encryption_key, context=self._context(bucket, key))

    def present(self, bucket: str, keys: Iterable[str]) -> set[str]:
        """Those of the keys whose object exists: asked one by one, or from one listing when they are many."""
        wanted = {self._path(bucket, key): key for key in keys}
        listing = pyarrow.fs.FileSelector(
            self._path(bucket, "originals"), recursive=True, allow_not_found=True
        )
        try:
            found = self.filesystem.get_file_info(list(wanted) if len(wanted) < LISTED_FROM else listing)
        except OSError as error:
            raise self._explain(error, f"look into the bucket {self.settings.bucket(bucket)}") from error
        files = {info.path for info in found if info.type == pyarrow.fs.FileType.File}
        return {key for path, key in wanted.items() if path in files}

    def _path(self, bucket: str, key: str) -> str:
        return f"{self.settings.bucket(bucket)}/{key}"

    def _context(self, bucket: str, key: str) -> bytes:
        return f"{bucket}/{key}".encode()

    def _explain(self, error: OSError, doing: str) -> ObjectStoreError:
        return ObjectStoreError(
            f"cannot {doing} at {self.settings.s3_endpoint}: {str(error).splitlines()[0]}. "
            "`make status` shows whether the S3 server runs and its disk has space; "
            "what was stored stays, so run the same command again"
        )
