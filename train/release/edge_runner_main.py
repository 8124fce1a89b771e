"""Ask an exported model about X-rays: `python predict.py IMAGE…` prints one line of JSON an image.

The last part of the edge runner, which `train.release.edge_runner` writes; everything above it there is the
project's own transform. Needs numpy, Pillow and onnxruntime. Reads `card.json` and the model that it names, from
its own folder, and the images, and nothing else; sends nothing anywhere.
"""

import argparse
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from data.imaging.errors import BadImageError
from data.imaging.preprocess import PREPROCESS_VERSION, to_model_input, to_pixels
from data.model_card import CARD_FILE, ModelCard

MAX_FILE_BYTES = 32 * 2**20
"""A larger file is refused unread, as the service does."""
DISCLAIMER = "Not a diagnosis and not medical advice: software for research, to be confirmed by a physician."


class RunnerError(ValueError):
    """The folder is not whole, or was changed; the message is one line."""


class Predictor:
    """An exported model with its card; ready when the constructor returns."""

    def __init__(self, folder: Path, threads: int = 1) -> None:
        """Load the model; raises RunnerError if a file is missing or is not the one that the card names."""
        import onnxruntime

        self.card = read_card(folder)
        self.pixels = self.card.pixels
        if self.card.runtime is None:
            raise RunnerError("card.json beside predict.py is not of an export: it names no model to run")
        name = self.card.runtime.model
        graph = verified(folder, name, self.card.files[name])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def logits(self, pixels_NHW: np.ndarray) -> np.ndarray:
        """Return raw outputs, float32 (N, classes), for pixels as `to_pixels` makes them."""
        name = self._session.get_inputs()[0].name
        return self._session.run(None, {name: to_model_input(pixels_NHW, self.pixels)})[0]

    def answer(self, blob: bytes) -> dict[str, Any]:
        """Return the answer for one PNG or JPEG file.

        Raises:
            BadImageError: it cannot be used; the message says why.
        """
        pixels_HW = to_pixels(blob, self.pixels)
        return answer(self.logits(pixels_HW[None])[0], self.card)


def read_card(folder: Path) -> ModelCard:
    try:
        card = ModelCard.from_json((folder / CARD_FILE).read_bytes(), any_transform=True)
    except (OSError, ValueError) as error:
        raise RunnerError(f"card.json beside predict.py cannot be read: {type(error).__name__}") from error
    if card.preprocess_version != PREPROCESS_VERSION:
        raise RunnerError(
            f"the model was trained on pixel transform {card.preprocess_version}, this runner makes "
            f"{PREPROCESS_VERSION}: keep the files of one export together"
        )
    return card


def verified(folder: Path, name: str, sha256: str) -> bytes:
    """Return a file's content; refuse it if its hash is not the card's."""
    try:
        blob = (folder / name).read_bytes()
    except OSError as error:
        raise RunnerError(f"{name} beside predict.py cannot be read: {type(error).__name__}") from error
    if hashlib.sha256(blob).hexdigest() != sha256:
        raise RunnerError(f"{name} was changed: its SHA-256 is not the one in card.json")
    return blob


def probabilities(logits_NK: np.ndarray, temperature: float) -> np.ndarray:
    """Return calibrated probabilities, float64, one row an image."""
    scaled_NK = logits_NK.astype(np.float64) / temperature
    exponent_NK = np.exp(scaled_NK - scaled_NK.max(axis=1, keepdims=True))
    return exponent_NK / exponent_NK.sum(axis=1, keepdims=True)


def answer(logits_K: np.ndarray, card: ModelCard) -> dict[str, Any]:
    """Return label, calibrated confidence, whether to abstain, and the classes that together hold the truth."""
    calibration = card.calibration
    row_K = probabilities(logits_K[None], calibration.temperature)[0]
    by_class = {name: round(float(p), 6) for name, p in zip(card.classes, row_K, strict=True)}
    ranked = sorted(by_class, key=lambda name: -by_class[name])
    inside = [name for name in ranked if by_class[name] >= calibration.conformal_threshold]
    abstained = by_class[ranked[0]] < calibration.abstain_below
    return {
        "label": ranked[0],
        "confidence": by_class[ranked[0]],
        "abstained": abstained,
        "abstained_reason": "below_threshold" if abstained else None,
        "prediction_set": inside or [ranked[0]],
        "probabilities": by_class,
        "model": {
            "name": card.model,
            "version": card.model_version,
            "variant": card.variant,
        },
        "disclaimer": DISCLAIMER,
    }


def read_image(path: Path) -> bytes:
    """Read an image file; raises BadImageError if it is too large or cannot be read."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise BadImageError("too_large", f"the file has more than {MAX_FILE_BYTES >> 20} MiB")
        return path.read_bytes()
    except OSError as error:
        raise BadImageError("unreadable", f"the file cannot be read: {error.strerror}") from error


def main(argv: list[str], folder: Path) -> int:
    """Print one line an image; 0 when each could be judged, 1 when one could not, 2 when the folder is not whole."""
    parser = argparse.ArgumentParser(prog="predict.py", description=DISCLAIMER, allow_abbrev=False)
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="a PNG or JPEG file")
    parser.add_argument("--threads", type=int, default=1, help="CPU cores that one image may use")
    chosen = parser.parse_args(argv)
    try:
        predictor = Predictor(folder, chosen.threads)
    except RunnerError as error:
        sys.stderr.write(f"predict.py: {error}\n")
        return 2
    failed = False
    for path in chosen.images:
        try:
            result = predictor.answer(read_image(path))
        except BadImageError as error:
            failed, result = True, {"error": error.message, "reason": error.reason}
        sys.stdout.write(json.dumps({"file": str(path), **result}) + "\n")
    return 1 if failed else 0
