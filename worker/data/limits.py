"""How much an upload may unfold into. Every refusal says what was found and what is allowed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from app.core.errors import ResourceLimit

GIGABYTE = 1_000_000_000
FEW_ENTRIES = 10_000  # below this it does not matter how little they hold
LEAST_BYTES = 20  # of a file in an archive of images, on average; the smallest GIF takes 26
RATIO_FREE_BYTES = 100_000_000  # below this an archive may shrink as well as it likes: blank images do


@dataclass(frozen=True)
class Limits:
    """Bounds of one inspection; the first two are settings, the rest follow from what real data needs."""

    images: int = 2_000_000
    image_pixels: int = 50_000_000
    unpacked_bytes: int = 64 * GIGABYTE  # of the archive, and of the canonical file
    ratio: int = 200  # photographs reach 1.1, drawn masks about 50; deflate's worst bombs 1032

    @classmethod
    def of(cls, task: Mapping[str, Any]) -> Self:
        """The task's own limits, with defaults where it names none."""
        given = {"images": task.get("max_images"), "image_pixels": task.get("max_image_pixels")}
        given["unpacked_bytes"] = task.get("max_unpacked_bytes")
        return cls(**{name: int(value) for name, value in given.items() if value is not None})

    @property
    def entries(self) -> int:
        """Names an archive may list: folders and stray files come on top of the images."""
        return 2 * self.images + 10_000

    @property
    def image_file_bytes(self) -> int:
        """The largest single image file: 16-bit RGBA without compression, and room for its metadata."""
        return 8 * self.image_pixels + 10_000_000

    def check_images(self, count: int) -> None:
        if count > self.images:
            raise ResourceLimit(
                f"The data set has {count:,} images; the limit is {self.images:,}.",
                hint="Send fewer images, or have the limit raised.",
                limit=self.images,
            )

    def check_worth(self, count: int, size: int) -> None:
        """Refuse an archive of names with next to nothing behind them, before each is looked at."""
        if count > FEW_ENTRIES and size < LEAST_BYTES * count:
            raise ResourceLimit(
                f"The archive lists {count:,} files that hold {size:,} bytes together: no images.",
                hint="Pack the image files themselves, in one folder for each class.",
                limit=FEW_ENTRIES,
            )

    def check_pixels(self, name: str, height: int, width: int) -> None:
        if height * width > self.image_pixels:
            raise ResourceLimit(
                f"{name} has {width} × {height} = {width * height:,} pixels; "
                f"the limit is {self.image_pixels:,}.",
                hint="Make it smaller; networks look at far fewer pixels.",
                limit=self.image_pixels,
            )

    def check_unpacked(self, unpacked: int, packed: int, *, so_far: bool = False) -> None:
        """Refuse what unfolds into more than the limit, or into far more than images ever do."""
        more = "more than " if so_far else ""
        if unpacked > self.unpacked_bytes:
            raise ResourceLimit(
                f"The archive unpacks to {more}{unpacked:,} bytes; the limit is {self.unpacked_bytes:,}.",
                hint="Send fewer images, or smaller ones.",
                limit=self.unpacked_bytes,
            )
        if unpacked > max(RATIO_FREE_BYTES, self.ratio * packed):
            raise ResourceLimit(
                f"The archive's {packed:,} bytes unpack to {more}{unpacked:,}, "
                f"{unpacked // max(packed, 1):,} times as much; the limit is {self.ratio} times.",
                hint="Pack images as JPEG, PNG or WebP: an archive hardly shrinks them any further.",
                limit=self.ratio,
            )
