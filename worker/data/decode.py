"""One image file to pixels: ordinary formats only, upright, uint8."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from app.core.errors import MalformedDataset, Problem, ResourceLimit
from worker.data.limits import Limits

Pixels = npt.NDArray[np.uint8]
_FORMATS: Final = ("JPEG", "PNG", "WEBP", "BMP", "DIB", "GIF", "TIFF", "PPM")
_GREY_MODES: Final = {"1", "L", "LA", "La"}
_ORIENTATION: Final = 0x0112  # the EXIF tag
_UPRIGHT: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Header:
    """What an image's header tells: its size once upright, and whether it has one channel."""

    height: int
    width: int
    grey: bool


def read_header(data: bytes, name: str, limits: Limits) -> Header:
    """Size and kind without decoding the pixels."""
    with _opened(data, name, limits) as image:
        width, height = image.size
        if _orientation(image) in (5, 6, 7, 8):
            width, height = height, width
        return Header(height, width, image.mode in _GREY_MODES or _is_deep_grey(image))


def decode(data: bytes, name: str, limits: Limits, channels: int) -> Pixels:
    """The first frame as H×W×C, upright. Alpha is dropped, as torchvision's own loader does."""
    with _opened(data, name, limits) as image:
        image.load()
        flat = _shallow(image, name) if _is_deep_grey(image) else image
        flat = flat.convert("L" if channels == 1 else "RGB")
        turn = _UPRIGHT.get(_orientation(image))
        return as_pixels(flat if turn is None else flat.transpose(turn))


def as_pixels(image: Image.Image) -> Pixels:
    """H×W×C of a grey or RGB image."""
    pixels: Pixels = np.asarray(image, np.uint8)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def as_image(pixels: Pixels) -> Image.Image:
    """The image of H×W×1 or H×W×3."""
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


@contextmanager
def _opened(data: bytes, name: str, limits: Limits) -> Iterator[Image.Image]:
    """The image, its size checked before any pixel is decoded; whatever breaks names the file."""
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            limits.check_pixels(name, image.height, image.width)
            yield image
    except (Problem, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise ResourceLimit(
            f"{name} has more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels; "
            f"the limit is {limits.image_pixels:,}.",
            hint="Make it smaller; networks look at far fewer pixels.",
            limit=limits.image_pixels,
        ) from error
    except Exception as error:  # Pillow's readers raise nearly anything on damaged files
        reason = "it is no image of a known format" if _is_unknown(error) else str(error) or repr(error)
        raise MalformedDataset(
            f"The image {name} ({len(data):,} bytes) cannot be read: {reason}.",
            hint="Remove or replace it. JPEG, PNG, WebP, BMP, GIF, TIFF and PPM are read.",
        ) from error


def _is_unknown(error: Exception) -> bool:
    return isinstance(error, UnidentifiedImageError)


def _orientation(image: Image.Image) -> int:
    try:
        value: Any = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # a damaged EXIF block leaves the picture as it is
        return 1
    return value if isinstance(value, int) else 1


def _is_deep_grey(image: Image.Image) -> bool:
    return image.mode.startswith("I")  # I;16 and its byte orders, and I: 16-bit PGM


def _shallow(image: Image.Image, name: str) -> Image.Image:
    """16-bit grey to 8 bit by its upper byte; Pillow's own conversion would cut everything over 255."""
    values = np.asarray(image)
    if values.size and not 0 <= values.min() <= values.max() < 65_536:
        raise MalformedDataset(
            f"{name} holds 32-bit values from {values.min()} to {values.max()}; 16 bits at most are read.",
            hint="Scale it to 8 bits, or upload floats as an .npz.",
        )
    return Image.fromarray((values.astype(np.uint32) >> 8).astype(np.uint8))
