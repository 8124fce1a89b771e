"""The prediction service opens uploads in a child process, and each way that ends has its status."""

import asyncio
import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data.sandbox.decoder import Decoder
from serve.front_door.prediction_service import PredictionConfig, PredictionService
from serve.front_door.upload import Upload
from serve.problems import Problem


def png(image_HW: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image_HW).save(file, "PNG")
    return file.getvalue()


SMALL = png(np.random.default_rng(0).integers(0, 255, (96, 96), np.uint8))
NOISE = png(np.random.default_rng(0).integers(0, 255, (256, 256), np.uint8))


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    with Decoder() as decoder:
        yield decoder


def opened(decoder: Decoder, blob: bytes, view: str | None = None) -> Any:
    nobody: Any = None
    service = PredictionService(
        models=nobody,
        decoder=decoder,
        store=nobody,
        records=nobody,
        encryption_key=b"e" * 32,
        pseudonym_key=b"p" * 32,
        config=PredictionConfig(),
    )
    upload = Upload(blob=blob, patient_key=None, study_key=None, sex=None, age=None, view=view, metadata=None)
    return asyncio.run(service._decode(upload))


def test_a_sound_image_is_shown(decoder: Decoder) -> None:
    decoded = opened(decoder, SMALL, view="PA")
    assert (decoded.kind, decoded.shown_HW.shape) == ("png", (96, 96))


@pytest.mark.parametrize(
    ("blob", "view", "status", "reason"),
    [
        (b"", None, 422, "empty"),
        (b"hello there", None, 415, None),
        (SMALL[:200], None, 422, "truncated"),
        (SMALL, "LATERAL", 422, "lateral"),
        (NOISE, None, 422, "not_an_xray"),
    ],
)
def test_what_cannot_be_judged_is_refused_with_its_reason(
    decoder: Decoder, blob: bytes, view: str | None, status: int, reason: str | None
) -> None:
    with pytest.raises(Problem) as caught:
        opened(decoder, blob, view)
    assert (caught.value.status, caught.value.reason) == (status, reason)


def test_without_a_process_to_decode_with_the_caller_may_retry() -> None:
    decoder = Decoder()
    decoder.close()
    with pytest.raises(Problem) as caught:
        opened(decoder, SMALL)
    assert caught.value.status == 503
    assert "Retry-After" in caught.value.headers
