"""The rows of a part that an erasure removes."""

import pyarrow as pa

from data.privacy.tombstones import holds


def test_a_row_is_an_images_by_source_and_hash_together() -> None:
    table = pa.table({"source": ["a", "b", "a"], "sha256": ["1", "1", "2"]})
    assert holds(table, {("a", "1"), ("b", "2")}).to_pylist() == [True, False, False]
