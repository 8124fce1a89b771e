"""A decoded image with its pixels at the sizes that versions take.

The champion's pixels are made in the thread that decodes, since a further thread costs a request as much as scaling a
small image does; those of a version with other settings are made when it is asked. Knows no HTTP.
"""

import asyncio
from dataclasses import dataclass, field

import numpy as np

from data.imaging.preprocess import Decoded, PixelConfig, scale
from data.sandbox.decoder import Decoder


@dataclass(frozen=True, kw_only=True)
class PreparedImage(Decoded):
    pixels: dict[PixelConfig, np.ndarray] = field(default_factory=dict)
    """pixels_HW, uint8 (side, side), by the settings that made them."""


def decode_and_scale(
    decoder: Decoder, blob: bytes, view: str | None, config: PixelConfig | None
) -> PreparedImage:
    """Decode a file, and scale it if the settings are known. Blocks.

    Raises:
        UnknownTypeError, BadImageError, SandboxError: as the decoder.
    """
    image = PreparedImage(**vars(decoder.decode(blob, view=view)))
    if config is not None:
        image.pixels[config] = scale(image.shown_HW, config)
    return image


async def pixels_for(decoded: Decoded, config: PixelConfig) -> np.ndarray:
    """Return the prepared pixels for these settings, else scale the image in a thread.

    Returns:
        pixels_HW: uint8, (side, side).
    """
    prepared = decoded.pixels.get(config) if isinstance(decoded, PreparedImage) else None
    return prepared if prepared is not None else await asyncio.to_thread(scale, decoded.shown_HW, config)
