"""A folder's `preprocessor_config.json` -> how pixels become the network's input, in this project's words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

INTERPOLATIONS: Final = {
    0: "nearest",
    1: "bicubic",
    2: "bilinear",
    3: "bicubic",
}  # Pillow's numbers; 1: Lanczos
_WARPS_FROM: Final = 384  # from here on ConvNext's processor squeezes images instead of cropping them
_MAX_SIDE: Final = 65_536
_CROP_SHARE: Final = 224 / 256  # what it crops below, unless told

Said = dict[str, Any]


def read_input(told: Mapping[str, Any], channels: int) -> Said:
    """`shape`, `scale`, `mean`, `std`, `resize`, `crop` and `interpolation`, where the file tells them."""
    said: Said = {"interpolation": INTERPOLATIONS.get(_number(told.get("resample")), "bilinear")}
    return said | _numbers(told, channels) | _geometry(told, channels)


def _numbers(told: Mapping[str, Any], channels: int) -> Said:
    said: Said = {}
    if told.get("do_rescale", True) is False:
        said["scale"] = 1
    elif factor := _number(told.get("rescale_factor")):
        said["scale"] = _whole(1 / factor)
    normalised = told.get("do_normalize", True) is not False
    mean = told.get("image_mean") if normalised else None
    std = told.get("image_std") if normalised else None
    if told.get("rescale_offset") and said.get("scale") != 1:  # EfficientNet's: to -1 … 1 instead of 0 … 1
        mean = [1 + value for value in _values(mean or [0.0] * channels)]
    if told.get("include_top") and std:  # EfficientNet's again: divided twice
        std = [value * value for value in _values(std)]
    return said | {name: value for name, value in (("mean", mean), ("std", std)) if value is not None}


def _values(told: Any) -> list[float]:
    return [float(_number(value) or 0) for value in told] if isinstance(told, list) else []


def _geometry(told: Mapping[str, Any], channels: int) -> Said:
    cropped = told.get("do_center_crop", "crop_size" in told)
    crop = _sides(told.get("crop_size"), shorter=False) if cropped else {}
    share = _crop_share(told)
    size = _sides(told.get("size"), shorter=bool(crop) or share is not None)
    if not told.get("do_resize", True):
        size = {}
    edge = size.get("shortest_edge")
    if edge and share is not None:
        small = {"resize": int(edge / share), "crop": edge} if edge < _WARPS_FROM else {}
        return {"shape": [channels, edge, edge]} | small
    height, width = ((crop or size).get(name, edge) for name in ("height", "width"))
    said: Said = {"shape": [channels, height, width]} if height and width else {}
    if crop and height == width:
        square = size.get("height") if size.get("height") == size.get("width") else None
        said |= {"resize": edge or square, "crop": height} if edge or square else {"crop": height}
    elif edge:
        said["resize"] = edge
    return said


def _crop_share(told: Mapping[str, Any]) -> float | None:
    """What of the resized image ConvNext's and PoolFormer's processors keep; None for others."""
    kind = str(told.get("image_processor_type") or told.get("feature_extractor_type") or "")
    share = _number(told.get("crop_pct"))
    if share is not None and 0 < share <= 1:
        return float(share)
    return _CROP_SHARE if kind.startswith("ConvNext") else None


def _sides(size: Any, *, shorter: bool) -> Said:
    """A size in any of the ways in which it has been written over the years: a bare number meant either."""
    if isinstance(size, int) and not isinstance(size, bool):
        size = {"shortest_edge": size} if shorter else {"height": size, "width": size}
    if not isinstance(size, Mapping):
        return {}
    names = ("height", "width", "shortest_edge")
    known = {name: size[name] for name in names if isinstance(size.get(name), int)}
    return {name: side for name, side in known.items() if 0 < side <= _MAX_SIDE}


def _number(value: Any) -> Any:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _whole(value: float) -> float:
    near = round(value)
    return near if abs(value - near) < 1e-6 * value else value
