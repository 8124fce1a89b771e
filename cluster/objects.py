"""The object store: small helpers over S3 through s3fs and pyarrow, one endpoint setting for both.

S3 has no rename, so a thing of several objects is published by writing its small commit object last.
"""

import json
from collections.abc import Iterable
from typing import Any

import pyarrow.fs
import s3fs
from botocore.exceptions import BotoCoreError

from cluster.settings import Settings


class ObjectStoreError(RuntimeError):
    """The store cannot be reached or refuses; the message says where and what to do."""


class ObjectStore:
    """Whole-object reads and writes by bucket (one of `BUCKETS`, without prefix) and key."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._fs = s3fs.S3FileSystem(
            key=settings.s3_access_key,
            secret=settings.s3_secret_key,
            endpoint_url=settings.s3_endpoint,
            use_listings_cache=False,
            skip_instance_cache=True,
            config_kwargs={"retries": {"max_attempts": 8, "mode": "standard"}, "connect_timeout": 5},
        )

    def path(self, bucket: str, key: str) -> str:
        """`bucket/key` as s3fs and pyarrow take it."""
        return f"{self.settings.bucket(bucket)}/{key}"

    def uri(self, bucket: str, key: str) -> str:
        return f"s3://{self.path(bucket, key)}"

    def put(self, bucket: str, key: str, blob: bytes) -> None:
        try:
            self._fs.pipe_file(self.path(bucket, key), blob)
        except (OSError, BotoCoreError) as error:
            raise self._explain(error, f"write {self.path(bucket, key)}") from error

    def get(self, bucket: str, key: str) -> bytes:
        """The whole object.

        Raises:
            FileNotFoundError: there is no such object.
            ObjectStoreError: the store does not answer.
        """
        try:
            blob: bytes = self._fs.cat_file(self.path(bucket, key))
        except FileNotFoundError:
            raise
        except (OSError, BotoCoreError) as error:
            raise self._explain(error, f"read {self.path(bucket, key)}") from error
        return blob

    def put_json(self, bucket: str, key: str, value: Any) -> None:
        self.put(bucket, key, json.dumps(value, sort_keys=True, indent=1).encode())

    def get_json(self, bucket: str, key: str) -> Any:
        return json.loads(self.get(bucket, key))

    def exists(self, bucket: str, key: str) -> bool:
        try:
            return bool(self._fs.exists(self.path(bucket, key)))
        except (OSError, BotoCoreError) as error:
            raise self._explain(error, f"look for {self.path(bucket, key)}") from error

    def keys(self, bucket: str, prefix: str) -> list[str]:
        """Keys of all objects below `prefix`, sorted."""
        root = self.settings.bucket(bucket) + "/"
        try:
            found = self._fs.find(root + prefix)
        except FileNotFoundError:
            return []
        except (OSError, BotoCoreError) as error:
            raise self._explain(error, f"list {root}{prefix}") from error
        return sorted(path.removeprefix(root) for path in found)

    def delete(self, bucket: str, keys: Iterable[str]) -> None:
        """Remove these objects; for what the caller made itself."""
        paths = [self.path(bucket, key) for key in keys]
        try:
            if paths:
                self._fs.rm(paths)
        except FileNotFoundError:
            return
        except (OSError, BotoCoreError) as error:
            raise self._explain(error, f"delete below {self.settings.bucket(bucket)}") from error

    def ensure_buckets(self, names: tuple[str, ...]) -> None:
        for name in names:
            bucket = self.settings.bucket(name)
            if not self._fs.exists(bucket):
                self._fs.mkdir(bucket)

    def _explain(self, error: Exception, doing: str) -> ObjectStoreError:
        return ObjectStoreError(
            f"cannot {doing} at {self.settings.s3_endpoint}: {type(error).__name__}: {error}. "
            "`make status` shows whether the S3 server runs"
        )


def arrow_filesystem(settings: Settings) -> pyarrow.fs.S3FileSystem:
    """The same store for pyarrow and Ray Data; pickles, so it travels to workers."""
    scheme, _, host = settings.s3_endpoint.partition("://")
    return pyarrow.fs.S3FileSystem(
        access_key=settings.s3_access_key,
        secret_key=settings.s3_secret_key,
        endpoint_override=host.rstrip("/"),
        scheme=scheme,
        request_timeout=60,
        allow_delayed_open=True,  # one request for a small object in place of three
        connect_timeout=5,
    )
