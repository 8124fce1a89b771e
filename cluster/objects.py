"""The object store: reads and writes over S3 through s3fs and pyarrow, one endpoint setting for both.

S3 has no rename, so what consists of several objects is published by writing its small commit object last.
"""

import json
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import pyarrow.fs
from botocore.exceptions import BotoCoreError, NoCredentialsError

from cluster.expected import ExpectedError
from cluster.patience import patiently
from cluster.settings import Settings

T = TypeVar("T")

REFUSALS = (
    *("ACCESS_DENIED", "INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH", "MISSING_AUTHENTICATION_TOKEN"),
    *("NO_SUCH_BUCKET", "VALIDATION", "INVALID_PARAMETER", "MALFORMED_QUERY_STRING"),
)
"""Codes in the messages of pyarrow (of the AWS SDK for C++) that another attempt does not change."""


class ObjectStoreError(ExpectedError):
    """The store cannot be reached or refuses; the message says where and what to do."""


def may_pass(error: Exception) -> bool:
    """Tell whether another attempt may succeed: the store starts, is busy or out of reach, but has not refused."""
    if isinstance(error, FileNotFoundError | PermissionError | NoCredentialsError):
        return False
    return not any(f"AWS Error {code}" in str(error) for code in REFUSALS)


class ObjectStore:
    """Whole-object reads and writes by bucket (one of `BUCKETS`, without prefix) and key."""

    def __init__(
        self, settings: Settings, *, patience_s: float = 0.0, deadline_s: float | None = None
    ) -> None:
        """Open the store.

        Args:
            patience_s: how long requests to a store that does not answer are repeated.
            deadline_s: after which a request fails, also when the server is there and says nothing.
        """
        import s3fs  # half a second of CPU time, spared to workers that only use pyarrow

        self.settings = settings
        self.patience_s = patience_s
        self._within = {} if deadline_s is None else {"timeout": deadline_s}
        self._fs = s3fs.S3FileSystem(
            key=settings.s3_access_key,
            secret=settings.s3_secret_key,
            endpoint_url=settings.s3_endpoint,
            use_listings_cache=False,
            skip_instance_cache=True,
            config_kwargs={"retries": {"max_attempts": 8, "mode": "standard"}, "connect_timeout": 5},
        )

    def path(self, bucket: str, key: str) -> str:
        """Return `bucket/key` as s3fs and pyarrow take it."""
        return f"{self.settings.bucket(bucket)}/{key}"

    def uri(self, bucket: str, key: str) -> str:
        return f"s3://{self.path(bucket, key)}"

    def put(self, bucket: str, key: str, blob: bytes) -> None:
        path = self.path(bucket, key)
        self._ask(f"write {path}", lambda: self._fs.pipe_file(path, blob, **self._within))

    def get(self, bucket: str, key: str) -> bytes:
        """Read the whole object.

        Raises:
            FileNotFoundError: there is no such object.
            ObjectStoreError: the store does not answer.
        """
        path = self.path(bucket, key)
        return self._ask(f"read {path}", lambda: self._fs.cat_file(path, **self._within))

    def put_json(self, bucket: str, key: str, value: Any) -> None:
        self.put(bucket, key, json.dumps(value, sort_keys=True, indent=1).encode())

    def get_json(self, bucket: str, key: str) -> Any:
        return json.loads(self.get(bucket, key))

    def exists(self, bucket: str, key: str) -> bool:
        path = self.path(bucket, key)
        return self._ask(f"look for {path}", lambda: bool(self._fs.exists(path, **self._within)))

    def keys(self, bucket: str, prefix: str) -> list[str]:
        """List the keys of all objects below `prefix`, sorted.

        SeaweedFS answers for a folder that was emptied as for an object of its name, which is left out.
        """
        root = self.settings.bucket(bucket) + "/"
        try:
            paths: list[str] = self._ask(f"list {root}{prefix}", lambda: self._fs.find(root + prefix))
        except FileNotFoundError:
            return []
        keys = (path.removeprefix(root) for path in paths)
        return sorted(key for key in keys if key != prefix.rstrip("/") or not prefix.endswith("/"))

    def delete(self, bucket: str, keys: Iterable[str]) -> None:
        """Delete these objects, which the caller made."""
        paths = [self.path(bucket, key) for key in keys]
        try:
            if paths:
                self._ask(f"delete below {self.settings.bucket(bucket)}", lambda: self._fs.rm(paths))
        except FileNotFoundError:
            return

    def ensure_buckets(self, names: tuple[str, ...]) -> None:
        for name in names:
            bucket = self.settings.bucket(name)
            if not self._fs.exists(bucket):
                self._fs.mkdir(bucket)

    def _ask(self, doing: str, work: Callable[[], T]) -> T:
        """Run work that is safe to repeat; errors but for a missing object get the name of the store."""
        try:
            return patiently(
                work, patience_s=self.patience_s, errors=(OSError, BotoCoreError), may_pass=may_pass
            )
        except FileNotFoundError:
            raise
        except (OSError, BotoCoreError) as error:
            raise ObjectStoreError(
                f"cannot {doing} at {self.settings.s3_endpoint}: {type(error).__name__}: {error}. "
                "`make status` shows whether the S3 server runs"
            ) from error


def arrow_filesystem(settings: Settings) -> pyarrow.fs.S3FileSystem:
    """Open the same store for pyarrow and Ray Data; it pickles, so it travels to workers."""
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
