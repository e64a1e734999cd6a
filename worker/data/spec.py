"""What a network wants to see: the model's ``input`` of the REST contract, read once and checked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self, cast

from app.core.errors import DatasetMismatch

Interpolation = Literal["bilinear", "bicubic", "nearest"]


@dataclass(frozen=True)
class InputSpec:
    """C, H, W of one image and how pixels become its floats: x/scale, then (x - mean)/std."""

    channels: int
    height: int
    width: int
    scale: float = 255.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    resize: int | None = None  # shorter side, in pixels
    crop: tuple[int, int] | None = None  # height, width of the centre
    interpolation: Interpolation = "bilinear"

    @classmethod
    def parse(cls, spec: Mapping[str, Any]) -> Self:
        """From api.md's ``input``; its ``shape`` is C, H, W whatever the layout."""
        channels, height, width = (int(side) for side in spec["shape"])
        return cls(
            channels,
            height,
            width,
            scale=float(_given(spec, "scale", 255.0)),
            mean=_per_channel("mean", _given(spec, "mean", 0.0), channels),
            std=_per_channel("std", _given(spec, "std", 1.0), channels),
            layout=_given(spec, "layout", "NCHW"),
            resize=spec.get("resize"),
            crop=_pair(spec.get("crop")),
            interpolation=cast(Interpolation, _given(spec, "interpolation", "bilinear")),
        )

    @property
    def geometry(self) -> dict[str, Any]:
        """All that decides the cached pixels; scale, mean and std do not."""
        return {
            "shape": [self.channels, self.height, self.width],
            "resize": self.resize,
            "crop": None if self.crop is None else list(self.crop),
            "interpolation": self.interpolation,
        }


def _given(spec: Mapping[str, Any], name: str, default: Any) -> Any:
    value = spec.get(name)
    return default if value is None else value


def _pair(value: int | Sequence[int] | None) -> tuple[int, int] | None:
    if value is None:
        return None
    height, width = (value, value) if isinstance(value, int) else value
    return int(height), int(width)


def _per_channel(name: str, value: float | Sequence[float], channels: int) -> tuple[float, ...]:
    values = (float(value),) if isinstance(value, int | float) else tuple(float(part) for part in value)
    if len(values) not in (1, channels):
        raise DatasetMismatch(
            f"The input's {name} has {len(values)} values; the network takes {channels} channels."
        )
    return values
