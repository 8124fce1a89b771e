"""Work that is shared out comes back once, whoever died over it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
import ray.exceptions

from data.dataset import ray_map

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
    pytest.mark.usefixtures("ray_local"),
]


def die_once(folder: Path, name: str) -> None:
    """End this process the first time it is called for that name."""
    try:
        (folder / name).touch(exist_ok=False)
    except FileExistsError:
        return
    os._exit(1)


def test_each_table_is_one_piece_and_a_dead_worker_s_is_done_again(tmp_path: Path) -> None:
    def square(table: pa.Table) -> pa.Table:
        numbers = table["n"].to_pylist()
        if 3 in numbers:
            die_once(tmp_path, "block")
        return pa.table({"squares": [n * n for n in numbers], "rows": [len(numbers)] * len(numbers)})

    tables = [pa.table({"n": [2 * n, 2 * n + 1]}) for n in range(5)]
    found = list(ray_map.through_blocks(tables, square))
    assert sorted(n for table in found for n in table["squares"].to_pylist()) == [n * n for n in range(10)]
    assert {n for table in found for n in table["rows"].to_pylist()} == {2}
    assert (tmp_path / "block").exists()


def test_each_piece_comes_back_with_its_number_and_what_is_shared(tmp_path: Path) -> None:
    def join(piece: str, folder: Path) -> str:
        if piece == "b":
            die_once(folder, piece)
        return f"{piece}{folder.name}"

    found = dict(ray_map.through_tasks(join, "abcde", tmp_path))
    assert found == {n: f"{piece}{tmp_path.name}" for n, piece in enumerate("abcde")}
    assert (tmp_path / "b").exists()


def test_pieces_are_taken_as_workers_become_free() -> None:
    taken: list[int] = []

    def pieces() -> Iterator[int]:
        for n in range(20):
            taken.append(n)
            yield n

    coming = ray_map.through_tasks(lambda piece: piece, pieces())
    first, _ = next(coming)
    assert len(taken) <= ray_map.at_once() + 1
    assert sorted([first, *(number for number, _ in coming)]) == list(range(20))
    assert taken == list(range(20))


def test_an_error_of_the_work_is_raised_and_not_repeated(tmp_path: Path) -> None:
    def fail(piece: int) -> None:
        with (tmp_path / "calls").open("a") as file:
            file.write("x")
        raise ValueError(f"piece {piece} is no good")

    with pytest.raises(ray.exceptions.RayError, match="piece 1 is no good"):
        list(ray_map.through_tasks(fail, [1]))
    assert (tmp_path / "calls").read_text() == "x"
