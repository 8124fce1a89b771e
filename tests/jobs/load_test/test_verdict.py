"""Which bounds a load test is held against: the command line's, else the environment's."""

from dataclasses import replace

from jobs.load_test.verdict import with_environment
from serve.control.environments import FILE, read
from train.evaluation.gates import Gates


def test_the_environment_s_bounds_count_where_the_command_line_has_none() -> None:
    where = read(FILE)["staging"]
    assert with_environment(Gates(), where) == Gates()
    where = replace(where, load_gates={"load_p99_ms": 200.0, "load_requests": 50})
    assert with_environment(Gates(), where) == Gates(load_p99_ms=200.0, load_requests=50)
    assert with_environment(Gates(load_p99_ms=4000.0), where) == Gates(load_p99_ms=4000.0, load_requests=50)
