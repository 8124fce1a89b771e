"""The machine on which the serving benchmarks run."""

from jobs.bench.serve_stage import fixed_machine


def test_the_machine_of_a_benchmark_does_not_grow() -> None:
    machine = {"front_door": {"num_replicas": 2}, "classifier": {"autoscaling_config": {"max_replicas": 2}}}
    fixed = fixed_machine(machine)
    assert [one["num_replicas"] for one in fixed.values()] == [1, 1]
    assert "autoscaling_config" not in fixed["classifier"]
