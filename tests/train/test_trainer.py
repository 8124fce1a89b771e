from train.trainer import _reason

OUT_OF_MEMORY = """Training failed due to controller error:
ray.exceptions.OutOfMemoryError: 5 worker(s) were killed due to the node running low on memory. Memory on the node \
was 22.31GB used / 23.54GB limit.
Refer to the documentation on how to address the out of memory issue: https://docs.ray.io"""


def test_a_full_machine_is_named_as_such_and_what_to_do_in_one_line() -> None:
    found = _reason(RuntimeError(OUT_OF_MEMORY))
    assert "ran out of memory" in found
    assert "goes on from the last checkpoint" in found
    assert "\n" not in found


def test_any_other_end_is_ray_s_last_line() -> None:
    assert (
        _reason(RuntimeError("Traceback:\n  here\nValueError: no such split\n"))
        == "ValueError: no such split"
    )
