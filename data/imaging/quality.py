"""Refuse decoded images that are no frontal X-ray: pages of text, screenshots, lateral views, inverted films.

`data.sandbox.child` opens every image through `judged`, so ETL (which quarantines) and serving (which answers 422)
refuse alike; `data.imaging.preprocess` has refused before what cannot be decoded, is blank, too small or in
colour. Judged on a 128-pixel thumbnail; each threshold was chosen on 3,785 real X-rays (docs/experiments.md).
Changes no pixel.
"""

import hashlib
import io
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pydicom
from PIL import Image

from data.imaging.preprocess import BadImageError, Decoded
from data.imaging.quality_concerns import concerns

Region = Literal["chest", "limb"]

QUALITY_VERSION = "1"
"""Raised whenever the same image would be judged otherwise; part of a dataset's version."""

MIN_JUDGED_SIDE = 128
"""Of an image with a shorter side only the view is judged: its thumbnail would be enlarged and say nothing."""
SIDE = 128
"""Of the thumbnail, whatever the image's shape."""

FINE_SHARE = 0.24
"""Of the contrast, in details of less than 1/64 of the side: print, grass, noise. X-rays: at most 0.220."""
ROUGHNESS = 0.38
"""Mean step between neighbours at 64 x 64, in standard deviations. X-rays: at most 0.354."""
FLAT_SHARE = 0.76
"""Of the pixels that equal their neighbours: charts, drawings, gradients. X-rays: at most 0.750."""
WINDOW_FLAT_SHARE, WINDOW_LEVEL_SHARE = 0.6, 0.15
"""Flat pixels, and pixels of one single brightness other than black: a screenshot. X-rays with both: 8 of 3,785,
limbs cut out and put on a uniform ground."""
BLACK = 24
"""Levels below are air, which is as flat as it likes to be."""

BRIGHTER = np.array(
    [
        [-25, -15, -1, 13],
        [-9, 1, -1, 4],
        [-7, 1, -9, 3],
        [-8, -2, -9, 10],
        [-10, -4, -2, 15],
        [-13, -4, 0, 10],
        [-18, 0, 5, 9],
        [-15, 9, 12, 14],
    ]
)
"""Where an X-ray is brighter than its mean range (spine, heart, abdomen, bone) and where darker (air beside the
neck and the limb, lungs): eighths of the height by eighths of the left half, folded onto the right one. Weights of
a logistic regression without intercept that tells the real X-rays from their negatives, times ten, rounded."""
INVERTED_BELOW = -5.0
NOT_XRAY_BELOW = -1.0
"""Of the sum of `BRIGHTER` times brightness in -0.5..0.5. A negative has the score of its positive with the other
sign; 99.75 % of the real X-rays are above -0.5, half of them above 49."""

LATERAL = frozenset({"L", "LL", "RL", "LAT", "LLAT", "RLAT", "LATERAL", "LEFT LATERAL", "RIGHT LATERAL"})
"""Views that are lateral: DICOM PS3.3 C.8.1 and C.8.11.5 (LL, RL), and what manifests write. Decubitus films (LLD,
RLD) are frontal."""
LIMBS = ("EXTREMITY", "HAND", "WRIST", "ARM", "ELBOW", "HUMERUS", "FINGER", "THUMB", "LEG", "KNEE", "ANKLE",
         "FOOT", "TOE", "FEMUR", "TIBIA", "CALCANEUS", "HIP", "RADIUS", "ULNA", "PATELLA")  # fmt: skip
"""Parts of BodyPartExamined (DICOM PS3.16 Annex L) whose lateral views are as good as any."""
NOT_RADIOGRAPHS = frozenset(
    {"CT", "MR", "US", "NM", "PT", "OP", "OPT", "ES", "GM", "SM", "XC", "ECG", "IVUS", "OCT"}
)
"""Modality (DICOM PS3.3 C.7.3.1.1.1) of what is no radiograph, whatever it looks like."""


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a DICOM header says about the kind of image; nothing in it names anybody."""

    view: str = ""
    """ViewPosition."""
    body_part: str = ""
    """BodyPartExamined, upper case."""
    modality: str = ""
    """Modality, upper case."""
    study_sha256: str | None = None
    """Of the StudyInstanceUID, hexadecimal; the UID itself goes nowhere."""


NO_HEADER = Header()


def judged(
    blob: bytes,
    decode: Callable[..., Decoded],
    *,
    view: str | None = None,
    region: Region | None = None,
    waived: Collection[str] = (),
) -> Decoded:
    """Decode one file and check it, with its header where it is a DICOM file.

    Args:
        decode: `preprocess.decode`, or what stands in for it; gets waived reasons only where there are some.
        view: see `check`.
        region: likewise.
        waived: likewise; of the decoder's reasons too.
    Raises:
        BadImageError: the decoder's reasons, then those of `check`.
    """
    decoded = decode(blob, waived) if waived else decode(blob)
    header = header_of(blob) if decoded.kind == "dicom" else NO_HEADER
    check(decoded, header=header, view=view, region=region, waived=waived)
    return decoded if header.study_sha256 is None else replace(decoded, study_sha256=header.study_sha256)


def doubted(decoded: Decoded) -> Decoded:
    """Add what makes an answer about it doubtful; for serving, since ETL has no use for it."""
    return (
        replace(decoded, concerns=concerns(_thumbnail(decoded.shown_HW))) if _is_judged(decoded) else decoded
    )


def header_of(blob: bytes) -> Header:
    """Read the header of a DICOM file that `preprocess.decode` has read."""
    fields = pydicom.dcmread(
        io.BytesIO(blob),
        stop_before_pixels=True,
        specific_tags=["ViewPosition", "BodyPartExamined", "Modality", "StudyInstanceUID"],
    )
    study = str(fields.get("StudyInstanceUID") or "")
    return Header(
        view=str(fields.get("ViewPosition") or ""),
        body_part=str(fields.get("BodyPartExamined") or "").upper(),
        modality=str(fields.get("Modality") or "").upper(),
        study_sha256=hashlib.sha256(study.encode()).hexdigest() if study else None,
    )


def check(
    decoded: Decoded,
    *,
    header: Header = NO_HEADER,
    view: str | None = None,
    region: Region | None = None,
    waived: Collection[str] = (),
) -> None:
    """Refuse what is no frontal chest film and no limb.

    Args:
        decoded: what `preprocess.decode` made of the file.
        header: `header_of` it, where it is a DICOM file.
        view: from the manifest or the caller; counts as much as the header's.
        region: what the label says it shows; None: unknown. A limb may be lateral, and whether it is
            inverted cannot be told: where the beam was cut off, some of its films are white.
        waived: reasons that a reviewer has judged, which are not to keep the image out.
    Raises:
        BadImageError: lateral, not_an_xray or inverted.
    """
    for objection in _objections(decoded, header, view, region):
        if objection.reason not in waived:
            raise objection


def _objections(
    decoded: Decoded, header: Header, view: str | None, region: Region | None
) -> Iterator[BadImageError]:
    """Yield all that speaks against an image, the most telling first."""
    if header.modality in NOT_RADIOGRAPHS:
        yield BadImageError(
            "not_an_xray", f"the DICOM header says {header.modality}, which is no X-ray image"
        )
    limb = region == "limb" or any(part in header.body_part for part in LIMBS)
    if not limb and any(is_lateral(known) for known in (view, header.view)):
        yield BadImageError(
            "lateral", "the image is a lateral view; of the chest only frontal films are judged"
        )
    if _is_judged(decoded):
        yield from _objections_to_looks(decoded.shown_HW, limb=limb)


def _is_judged(decoded: Decoded) -> bool:
    return min(decoded.width, decoded.height) >= MIN_JUDGED_SIDE


def _thumbnail(shown_HW: np.ndarray) -> np.ndarray:
    small = Image.fromarray(shown_HW).resize((SIDE, SIDE), Image.Resampling.BOX, reducing_gap=2.0)
    return np.asarray(small)


def is_lateral(view: str | None) -> bool:
    """Tell whether a view, as a header, a manifest or a caller writes it, is a lateral one.

    Pixels are not asked: there is no lateral film to measure that with among the X-rays we have.
    """
    return view is not None and " ".join(view.upper().replace("_", " ").split()) in LATERAL


def upright_score(thumbnail_HW: np.ndarray) -> float:
    """Measure how much brightness lies where X-rays are bright; negative for negatives.

    Args:
        thumbnail_HW: float, (SIDE, SIDE), 0..1.
    """
    eighths_HW = _shrink(thumbnail_HW, SIDE // 8) - 0.5
    folded_HW = (eighths_HW[:, :4] + eighths_HW[:, :3:-1]) / 2
    return float((folded_HW * BRIGHTER).sum())


def _objections_to_looks(shown_HW: np.ndarray, *, limb: bool) -> Iterator[BadImageError]:
    levels_HW = _thumbnail(shown_HW)
    stretched_HW = _stretched(levels_HW)
    if _fine_share(stretched_HW) > FINE_SHARE or _roughness(stretched_HW) > ROUGHNESS:
        yield _not_an_xray("it is as fine-grained as print or noise")
    flat = _flat_share(levels_HW)
    one_level = np.bincount(levels_HW.ravel(), minlength=256)[BLACK:].max() / levels_HW.size
    if flat > FLAT_SHARE or (flat > WINDOW_FLAT_SHARE and one_level > WINDOW_LEVEL_SHARE):
        yield _not_an_xray("it consists of even areas, as a drawing or a screenshot does")
    if limb:
        return
    score = upright_score(stretched_HW)
    if score < INVERTED_BELOW:
        yield BadImageError(
            "inverted",
            "bright and dark are the wrong way round for an X-ray: air has to be black, bone white",
        )
    elif score < NOT_XRAY_BELOW:
        yield _not_an_xray("bright and dark lie where no X-ray has them")


def _not_an_xray(why: str) -> BadImageError:
    return BadImageError("not_an_xray", f"the image is not an X-ray: {why}")


def _stretched(levels_HW: np.ndarray) -> np.ndarray:
    """Map the range between the 0.5th and the 99.5th percentile to 0..1."""
    low, high = np.percentile(levels_HW, (0.5, 99.5))
    return np.clip((levels_HW.astype(np.float32) - low) / max(high - low, 1), 0, 1)


def _shrink(values_HW: np.ndarray, by: int) -> np.ndarray:
    height, width = values_HW.shape
    return values_HW.reshape(height // by, by, width // by, by).mean(axis=(1, 3))


def _fine_share(stretched_HW: np.ndarray) -> float:
    coarse_HW = np.repeat(np.repeat(_shrink(stretched_HW, 2), 2, axis=0), 2, axis=1)
    return float(np.square(stretched_HW - coarse_HW).mean() / (stretched_HW.var() + 1e-6))


def _roughness(stretched_HW: np.ndarray) -> float:
    half_HW = _shrink(stretched_HW, 2)
    steps = np.abs(np.diff(half_HW, axis=0)).mean() + np.abs(np.diff(half_HW, axis=1)).mean()
    return float(steps / 2 / (half_HW.std() + 1e-6))


def _flat_share(levels_HW: np.ndarray) -> float:
    """Return the share of pixels whose neighbours below and to the right are within one level."""
    levels = levels_HW.astype(np.int16)
    down_HW = np.abs(np.diff(levels, axis=0))[:, :-1]
    right_HW = np.abs(np.diff(levels, axis=1))[:-1]
    return float((np.maximum(down_HW, right_HW) <= 1).mean())
