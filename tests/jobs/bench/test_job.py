"""The page of the benchmarks."""

from dataclasses import asdict

from jobs.bench.figure import Figure
from jobs.bench.job import BENCHMARKS, table


def test_a_figure_is_a_row_of_the_page() -> None:
    page = table([asdict(Figure.of("predict", 12.0, 8.0, "torch", "ms"))])
    assert page.startswith("# Benchmarks\n")
    (row,) = [line for line in page.splitlines() if line.startswith("| predict")]
    assert [cell.strip() for cell in row.strip("|").split("|")] == [
        "predict",
        "12.0",
        "8.0",
        "torch",
        "1.5",
        "ms",
    ]


def test_a_benchmark_has_the_name_of_its_function() -> None:
    assert all(function.__name__ == name for name, function in BENCHMARKS.items())
