"""The snapshot of routes and cards that a front door serves from."""

from serve.front_door.serving_snapshot import ServingSnapshot
from tests.serve.models import CARD, SNAPSHOT, Models, ask, sound


def test_a_version_without_a_card_yet_is_passed_over() -> None:
    models = Models(sound, sound)
    [(served, attempts)] = ask(models, snapshot=ServingSnapshot(routes=SNAPSHOT.routes, cards={"1": CARD}))
    assert (served, attempts[0].outcome, models.asked) == ("1", "infrastructure", ["1"])
