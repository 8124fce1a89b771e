"""Serve applications of the front-door benchmark: our own door over nothing to decode, to store and to classify.

Deployed by `jobs.bench.serve_stage` in place of `serve.deployments`' own. Authentication, limits, parsing, routing,
hop, attempts, record and answer are the product's; only what the benchmark leaves out is replaced, through the seams
that the prediction service has.
"""

from typing import Any

import numpy as np
import ray.serve

from data.imaging.preprocess import Decoded
from data.sandbox.decoder import Decoder
from serve.access.rate_limit import Rate, RateConfig
from serve.deployments import FrontDoorReplica
from serve.ledger.image_writer import Images

SHOWN_HW = np.zeros((16, 16), np.uint8)
"""So small that scaling it is next to nothing."""
PROBABILITIES_C = np.array([0.82, *[0.02] * 9])
UNLIMITED = Rate(per_s=1e9, burst=10**9)


class NothingToDecode(Decoder):
    """Every file is the same small image."""

    def __init__(self) -> None:
        """Start no children."""

    def decode(self, blob: bytes, **rules: Any) -> Decoded:
        height, width = SHOWN_HW.shape
        return Decoded(shown_HW=SHOWN_HW, kind="png", width=width, height=height)


class NothingKept(Images):
    """Takes images and forgets them."""

    def __init__(self) -> None:
        """Connect to no server."""

    async def keep(self, key: str, shown_HW: np.ndarray) -> bytes | None:
        return None


class BareDoorReplica(FrontDoorReplica):
    def __init__(self) -> None:
        super().__init__(RateConfig(client=UNLIMITED))
        self.service.decoder.close()
        self.service.decoder = NothingToDecode()
        self.service.images = NothingKept()


class NoModelReplica:
    async def classify(self, pixels_NHW: np.ndarray, judged: bool = False) -> list[np.ndarray | str]:
        return [PROBABILITIES_C] * len(pixels_NHW)


def front_door(args: dict[str, Any]) -> ray.serve.Application:
    return ray.serve.deployment(name="front_door")(ray.serve.ingress()(BareDoorReplica)).bind()


def classifier(args: dict[str, Any]) -> ray.serve.Application:
    return ray.serve.deployment(name="classifier")(NoModelReplica).bind()
