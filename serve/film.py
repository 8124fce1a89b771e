"""A decoded image with the pixels of it that versions are asked with.

They are made in the thread that decodes, as the champion wants them, since a further thread costs a request as much as
scaling a small image does; a version that wants other pixels has them made when it is asked. Knows no HTTP.
"""

import asyncio
from dataclasses import dataclass, field

import numpy as np

from data.preprocess import Decoded, PixelConfig, scale
from data.sandbox import Decoder


@dataclass(frozen=True, kw_only=True)
class Film(Decoded):
    pixels: dict[PixelConfig, np.ndarray] = field(default_factory=dict)
    """pixels_HW, uint8 (side, side), by what made them."""


def opened(decoder: Decoder, blob: bytes, view: str | None, config: PixelConfig | None) -> Film:
    """Decode a file, and scale it where it is known for which pixels. Blocks.

    Raises:
        UnknownTypeError, BadImageError, SandboxError: as the decoder.
    """
    film = Film(**vars(decoder.decode(blob, view=view)))
    if config is not None:
        film.pixels[config] = scale(film.shown_HW, config)
    return film


async def pixels_of(decoded: Decoded, config: PixelConfig) -> np.ndarray:
    """Those that are there, or new ones from a thread."""
    known = decoded.pixels.get(config) if isinstance(decoded, Film) else None
    return known if known is not None else await asyncio.to_thread(scale, decoded.shown_HW, config)
