"""One planted X-ray and its de-identified copy, shared by the tests of de-identification."""

import io
from collections.abc import Iterator

import pydicom
import pytest
from pydicom.dataset import Dataset

from data.privacy.export import dicom_copy
from data.sandbox.decoder import Decoder
from tests.data.imaging.headers import KEY, PATIENT
from tests.planted import Planted, plant


@pytest.fixture(scope="module")
def planted() -> Planted:
    return plant(11)


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    with Decoder() as decoder:
        yield decoder


@pytest.fixture(scope="module")
def blob(planted: Planted, decoder: Decoder) -> bytes:
    """The copy, as a file."""
    return dicom_copy(planted.dicom, decoder, key=KEY, patient=PATIENT)


@pytest.fixture
def data(blob: bytes) -> Dataset:
    """The copy."""
    return pydicom.dcmread(io.BytesIO(blob))
