"""The error of an image that cannot be used: a reason code and one line, raised by everything that decodes.

Knows no file format. `data.imaging.preprocess` passes these names on; callers import them from there.
"""

from collections.abc import Collection

MAX_PIXELS = 64_000_000
"""A larger image is refused from its header, before a decoder allocates it; large detectors give 25 MP."""
MIN_SIDE = 32
"""A shorter side holds less than two of the ViT's patches: a thumbnail or an icon."""


class BadImageError(ValueError):
    """One image cannot be used; the message is one line without patient data or file content.

    Reasons: empty, unknown_type, truncated, corrupt, unsupported, no_pixels, multi_frame, too_small,
    too_large, blank.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        """Rebuild from both arguments when Ray sends it to another process."""
        return type(self), (self.reason, self.message)


class UnknownTypeError(BadImageError):
    """The bytes are neither PNG, JPEG nor DICOM."""


def check_size(width: int, height: int, waived: Collection[str] = ()) -> None:
    """Refuse what is too small to show anything or too large to decode.

    Args:
        waived: reasons that a reviewer has judged; what is too large stays refused.
    Raises:
        BadImageError: too_small or too_large.
    """
    if min(width, height) < MIN_SIDE and "too_small" not in waived:
        raise BadImageError("too_small", f"the image is {width} x {height}; {MIN_SIDE} pixels is the least")
    if width * height > MAX_PIXELS:
        raise BadImageError(
            "too_large", f"the image is {width} x {height}; {MAX_PIXELS // 1_000_000} megapixels is the most"
        )
