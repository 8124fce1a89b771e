"""DICOM headers and the key that the tests of de-identification use."""

from pydicom.dataset import Dataset

KEY = bytes(range(32))


PATIENT = "a" * 64


def header(**fields: object) -> Dataset:
    data = Dataset()
    for name, value in fields.items():
        setattr(data, name, value)
    return data
