"""What the uploader said of a network's input, checked, and completed by what the file tells."""

from typing import Any, Final

from app.core.errors import ValidationFailed
from basisconv.formats.network import Layout, Network

_FIELDS: Final = ("shape", "scale", "mean", "std", "layout", "resize", "crop", "interpolation")
MAX_PIXELS: Final = 100_000_000  # floats of one image; the first layer's output is larger still
_INTERPOLATIONS: Final = ("nearest", "bilinear", "bicubic")


class Requested:
    """What the uploader said of the input; checked here too, because only the file knows the channels."""

    def __init__(self, said: dict[str, Any]) -> None:
        self._said = {name: value for name, value in said.items() if value is not None}
        unknown = sorted(set(said) - set(_FIELDS))
        if unknown:
            raise invalid(unknown[0], f"is not a field of `input`; those are {', '.join(_FIELDS)}")
        self.shape = self._read_shape()
        self.layout: Layout | None = self._choice("layout", ("NCHW", "NHWC"))
        self.scale = self._positive("scale", 255)
        self.resize, self.crop = self._side("resize"), self._side("crop")
        self.interpolation = self._choice("interpolation", _INTERPOLATIONS) or "bilinear"
        if self.resize and self.crop and self.crop > self.resize:
            raise invalid("crop", f"is {self.crop}, more than the {self.resize} that images are resized to")

    def check(self, channels: int) -> None:
        """Raises ValidationFailed where mean or std do not fit so many channels."""
        self._per_channel("mean", channels, 0.0)
        self._per_channel("std", channels, 1.0)

    def complete(self, network: Network) -> dict[str, Any]:
        """The `input` of the REST contract, with everything filled in."""
        channels = network.input_shape[0]
        return {
            "shape": list(network.input_shape),
            "scale": self.scale,
            "mean": self._per_channel("mean", channels, 0.0),
            "std": self._per_channel("std", channels, 1.0),
            "layout": network.layout,
            "resize": self.resize,
            "crop": self.crop,
            "interpolation": self.interpolation,
        }

    def _read_shape(self) -> tuple[int, int, int] | None:
        shape = self._said.get("shape")
        if shape is None:
            return None
        if not isinstance(shape, list) or len(shape) != 3 or any(not _is_side(side) for side in shape):
            raise invalid("shape", f"must be [channels, height, width], whole numbers from 1; got {shape!r}")
        return (shape[0], shape[1], shape[2])

    def _choice(self, name: str, allowed: tuple[str, ...]) -> Any:
        value = self._said.get(name)
        if value is not None and value not in allowed:
            raise invalid(name, f"must be one of {', '.join(allowed)}; got {value!r}")
        return value

    def _positive(self, name: str, default: float) -> float:
        value = self._said.get(name, default)
        if not _is_number(value) or not 0 < value < 1e9:
            raise invalid(name, f"must be a number above 0; got {value!r}")
        return float(value) if value != int(value) else int(value)

    def _side(self, name: str) -> int | None:
        value = self._said.get(name)
        if value is not None and not _is_side(value):
            raise invalid(name, f"must be a whole number of pixels from 1; got {value!r}")
        return value

    def _per_channel(self, name: str, channels: int, default: float) -> list[float]:
        values = self._said.get(name)
        if values is None:
            return [default] * channels
        if not isinstance(values, list) or any(not _is_number(value) for value in values):
            raise invalid(name, f"must be a list of numbers; got {values!r}")
        if len(values) != channels:
            raise invalid(name, f"has {len(values)} values; the network takes {channels} channels")
        if name == "std" and min(values) <= 0:
            raise invalid(name, f"must be above 0 in every channel; got {values}")
        return [float(value) for value in values]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e30


def _is_side(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 65_536


def invalid(field: str, what: str) -> ValidationFailed:
    """A refusal that names the field of `input`."""
    return ValidationFailed(
        f"input.{field} {what}.", errors=[{"pointer": f"#/input/{field}", "detail": f"{field} {what}"}]
    )
