"""Whole objects through pyarrow's S3 client: a third of the CPU time of s3fs, for the many that workers move.

`data.catalog.originals` and `data.dataset.staging` call it. It renames errors as `ObjectStore` does and repeats as
long as it is asked to be. Knows nothing of what it moves.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

import pyarrow as pa
import pyarrow.fs

from cluster.expected import first_line
from cluster.objects import ObjectStoreError, arrow_filesystem, may_pass
from cluster.patience import patiently
from cluster.settings import Settings

T = TypeVar("T")


def of_the_store(error: OSError) -> bool:
    """Tell whether pyarrow's S3 client raised an error, and not a reader of what the object holds."""
    return "AWS Error" in str(error)


@dataclass(frozen=True)
class ArrowObjects:
    settings: Settings
    filesystem: pyarrow.fs.FileSystem
    patience_s: float
    """How long a store that does not answer is asked again."""

    @classmethod
    def of(cls, settings: Settings, *, patience_s: float = 0.0) -> "ArrowObjects":
        return cls(settings, arrow_filesystem(settings), patience_s)

    def path(self, bucket: str, key: str) -> str:
        return f"{self.settings.bucket(bucket)}/{key}"

    def put(self, bucket: str, key: str, blob: bytes | pa.Buffer) -> None:
        """Write a whole object, visible when this returns; a second attempt replaces what the first may have left."""

        def write() -> None:
            with self.filesystem.open_output_stream(self.path(bucket, key)) as stream:
                stream.write(blob)

        self.ask(f"write to the bucket {self.settings.bucket(bucket)}", write)

    def get(self, bucket: str, key: str) -> bytes:
        """Read the whole object.

        Raises:
            FileNotFoundError: there is no such object; a server that is just starting may say so too.
            ObjectStoreError: the store does not answer.
        """

        def read() -> bytes:
            with self.filesystem.open_input_stream(self.path(bucket, key), buffer_size=0) as stream:
                blob: bytes = stream.readall()
            return blob

        return self.ask(f"read from the bucket {self.settings.bucket(bucket)}", read)

    def find(self, bucket: str, key: str) -> bytes | None:
        """Read the object; None when there is none."""
        try:
            return self.get(bucket, key)
        except FileNotFoundError:
            return None

    def sizes(self, bucket: str, keys: Iterable[str]) -> dict[str, int]:
        """Return the size in bytes of each of the keys whose object exists; one request a key."""
        paths = {self.path(bucket, key): key for key in keys}
        infos = self.ask(
            f"look into the bucket {self.settings.bucket(bucket)}",
            lambda: self.filesystem.get_file_info(list(paths)),
        )
        return {paths[info.path]: info.size for info in infos if info.type == pyarrow.fs.FileType.File}

    def ask(self, doing: str, work: Callable[[], T]) -> T:
        """Run work on the file system that is safe to repeat.

        Raises:
            FileNotFoundError: as the work did.
            ObjectStoreError: the store does not answer, or refuses.
        """
        try:
            return patiently(work, patience_s=self.patience_s, errors=(OSError,), may_pass=may_pass)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise ObjectStoreError(
                f"cannot {doing} at {self.settings.s3_endpoint}: {first_line(error)}. "
                "`make status` shows whether the S3 server runs and its disk has space; "
                "what was stored stays, so run the same command again"
            ) from error
