"""Whole objects through pyarrow's file systems; here a folder in place of S3."""

from pathlib import Path

import pyarrow.fs
import pytest

from cluster.arrow_objects import ArrowObjects, of_the_store
from cluster.objects import ObjectStoreError
from tests.bare_settings import bare_settings


@pytest.fixture
def objects(tmp_path: Path) -> ArrowObjects:
    (tmp_path / "datasets").mkdir()
    folder = pyarrow.fs.SubTreeFileSystem(str(tmp_path), pyarrow.fs.LocalFileSystem())
    return ArrowObjects(bare_settings(), folder, patience_s=0.0)


def test_what_was_put_last_is_read_and_has_its_size(objects: ArrowObjects) -> None:
    objects.put("datasets", "one", b"first")
    objects.put("datasets", "one", b"second")
    assert objects.get("datasets", "one") == b"second"
    assert objects.sizes("datasets", ["one", "none"]) == {"one": 6}


def test_an_absent_object_is_found_to_be_none(objects: ArrowObjects) -> None:
    assert objects.find("datasets", "none") is None
    with pytest.raises(FileNotFoundError):
        objects.get("datasets", "none")


def test_a_store_that_refuses_is_one_line_with_its_address(objects: ArrowObjects) -> None:
    def refused() -> None:
        raise OSError("AWS Error ACCESS_DENIED during PutObject\nrequest 7")

    with pytest.raises(ObjectStoreError, match=r"cannot write at http://s3: AWS Error ACCESS_DENIED[^\n]*$"):
        objects.ask("write", refused)


def test_an_error_of_a_reader_is_none_of_the_stores() -> None:
    assert of_the_store(OSError("When reading: AWS Error SLOW_DOWN"))
    assert not of_the_store(OSError("not a Parquet file"))
