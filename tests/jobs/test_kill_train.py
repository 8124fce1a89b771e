"""What is pure in the script; the kills themselves are in tests/services_training/test_train_interrupted.py."""

from jobs.kill_train import victims


def test_every_fourth_victim_is_the_driver_and_the_steps_are_those_of_the_seed() -> None:
    found = victims(20, 156, seed=0)
    assert [victim for victim, _ in found].count("driver") == 5
    assert found == victims(20, 156, seed=0)
    assert [step for _, step in found] != [step for _, step in victims(20, 156, seed=1)]
    assert all(1 <= step < 155 for _, step in found)
