"""One version of the classifier as front doors reach it through Ray Serve, whatever code its bundle brings."""

import socket
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # Ray Serve's own, at import
    pytest.mark.usefixtures("ray_local"),
]
IMAGE = np.zeros((4, 4), np.uint8)


class Now:
    """A replica with today's code."""

    async def classify(self, pixels_NHW: np.ndarray, judged: bool = False) -> list[np.ndarray | str]:
        rows: list[np.ndarray | str] = [
            np.append(np.full(10, 0.1), 7.5)[: 11 if judged else 10] for _ in pixels_NHW
        ]
        return [*rows[:-1], "ValueError"] if len(rows) > 1 else rows


class Before:
    """A replica whose code knows of no strangeness."""

    def __init__(self) -> None:
        self.asked = 0

    async def classify(self, pixels_NHW: np.ndarray) -> list[np.ndarray]:
        self.asked += 1
        return [np.full(10, 0.1)] * len(pixels_NHW)

    async def times(self) -> int:
        return self.asked


class Door:
    """Holds handles as a front door does."""

    def __init__(self) -> None:
        from serve.front_door.replica_client import VersionHandle

        self.versions = {version: VersionHandle(version) for version in ("now", "before")}

    async def ask(self, version: str, images: int) -> list[Any]:
        import asyncio

        judged = version == "now"
        asked = (self.versions[version].classify(IMAGE, judged) for _ in range(images))
        return await asyncio.gather(*asked, return_exceptions=True)


@pytest.fixture(scope="module")
def handles(ray_local: None) -> Iterator[tuple[Any, Any]]:
    import ray.serve as serve

    from serve.routing.routes import app_name

    with socket.create_server(("127.0.0.1", 0)) as free:  # port 8000 may be somebody's
        port = free.getsockname()[1]
    serve.start(http_options={"port": port})
    tiny = {"num_cpus": 0}
    run = {}
    for version, code in (("now", Now), ("before", Before)):
        application = serve.deployment(code, name="classifier", ray_actor_options=tiny).bind()
        run[version] = serve.run(application, name=app_name("xray-vit", version), route_prefix=None)
    door = serve.deployment(Door, ray_actor_options=tiny).bind()
    yield serve.run(door, name="door", route_prefix=None), run["before"]
    serve.shutdown()


def test_probabilities_and_strangeness_arrive_and_each_image_has_its_own_error(
    handles: tuple[Any, Any],
) -> None:
    door, _ = handles
    (said,) = door.ask.remote("now", 1).result()
    assert np.array_equal(said.probabilities_C, np.full(10, 0.1))
    assert said.strangeness == 7.5
    many = door.ask.remote("now", 5).result()
    assert [type(one).__name__ for one in many].count("ModelError") == 1
    assert sum(getattr(one, "strangeness", 0) == 7.5 for one in many) == 4


def test_code_of_before_is_asked_as_before(handles: tuple[Any, Any]) -> None:
    door, before = handles
    for _ in range(3):
        (said,) = door.ask.remote("before", 1).result()
        assert np.array_equal(said.probabilities_C, np.full(10, 0.1))
        assert np.isnan(said.strangeness)
    assert before.times.remote().result() == 3
