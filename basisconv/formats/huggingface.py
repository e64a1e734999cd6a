"""A Hugging Face model folder -> a module: the network of `config.json` with the weights beside it.

The architecture comes from the installed `transformers`, never from the folder. Of the configuration only the
fields that the architecture itself declares are handed on, each as what its default is (a number stays a
number): not the attention kernels, data types or quantisers that the library would look up or download.
"""

from __future__ import annotations

import dataclasses
import importlib
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from torch import Tensor, nn

from basisconv.errors import MethodError
from basisconv.formats.stored import State, fill

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

# model_type -> how its classes are called. Each was built, exported, read back and compared; others of the
# library's image classifiers hold no convolutions to speak of, call what a .pt2 of ours may not, or want
# their colours in another order (MobileViT).
KNOWN: Final = {
    "convnext": "ConvNext",
    "convnextv2": "ConvNextV2",
    "efficientnet": "EfficientNet",
    "focalnet": "FocalNet",
    "hgnet_v2": "HGNetV2",
    "mobilenet_v1": "MobileNetV1",
    "mobilenet_v2": "MobileNetV2",
    "poolformer": "PoolFormer",
    "regnet": "RegNet",
    "resnet": "ResNet",
    "swiftformer": "SwiftFormer",
    "textnet": "TextNet",
}
_REMOTE: Final = ("auto_map", "trust_remote_code", "custom_pipelines")
_MAX_NUMBER: Final = 65_536
_MAX_ITEMS: Final = 64
_MAX_TEXT: Final = 64
_MAX_CLASSES: Final = 1_000_000
_USUAL_SIDE: Final = 224


@dataclass(frozen=True)
class Built:
    """A network in eval mode that takes N×C×H×W and gives its classes' scores."""

    module: nn.Module
    architecture: str
    shape: tuple[int, int, int]  # C, H, W of its configuration


def build(config: Mapping[str, Any], state: State) -> Built:
    """Raises unsafe_serialization, unsupported_format, malformed_model."""
    kind = _kind(config)
    fields, classes = _fields(config, kind), _class_count(config, state)
    made, network = _classes(kind)

    def make() -> nn.Module:
        try:
            described = made(**(fields | {"num_labels": classes}))
            return network(described)
        except (MemoryError, MethodError):
            raise
        except (
            TypeError,
            ValueError,
            KeyError,
            IndexError,
            ArithmeticError,
            AttributeError,
            RuntimeError,
        ) as error:
            reason = " ".join(str(error).split())[:200]
            raise _malformed(f"config.json describes no network of the kind {kind!r}: {reason}.") from error

    module = fill(make, state, f"the network of config.json ({kind})")
    return Built(module, kind, _shape(fields))


def _malformed(detail: str) -> MethodError:
    return MethodError(
        "malformed_model", detail, hint="Save the folder again with model.save_pretrained(folder)."
    )


def _kind(config: Mapping[str, Any]) -> str:
    for name in _REMOTE:
        if config.get(name):
            raise MethodError(
                "unsafe_serialization",
                f"config.json names code of its own ({name}), which is never run.",
                hint="Export the network where you trust its code: torch.export.save gives a .pt2.",
            )
    kind = config.get("model_type")
    if kind in KNOWN:
        return str(kind)
    raise MethodError(
        "unsupported_format",
        f"config.json describes a {str(kind)[:60]!r}; known are {', '.join(KNOWN)}.",
        hint="Export others where they run: torch.export.save gives a .pt2, torch.onnx.export an ONNX file.",
    )


def _classes(kind: str) -> tuple[type[PreTrainedConfig], type[nn.Module]]:
    """The library's two classes, the second taught to give the scores alone."""
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", TRANSFORMERS_VERBOSITY="error")
    folder, name = f"transformers.models.{kind}", KNOWN[kind]
    config = getattr(importlib.import_module(f"{folder}.configuration_{kind}"), f"{name}Config")
    network = getattr(importlib.import_module(f"{folder}.modeling_{kind}"), f"{name}ForImageClassification")

    def forward(self: Any, pixel_values: Tensor) -> Tensor:
        scores: Tensor = network.forward(self, pixel_values=pixel_values).logits
        return scores

    return config, type(network.__name__, (network,), {"forward": forward})


def _fields(config: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """What the folder says of the architecture's own fields."""
    from transformers import PreTrainedConfig

    made, _ = _classes(kind)
    general = {field.name for field in dataclasses.fields(PreTrainedConfig)}
    defaults = {
        field.name: getattr(made(), field.name)
        for field in dataclasses.fields(made)
        if field.name not in general and not field.name.startswith("_")
    }
    return {
        name: _checked(name, config[name], default)
        for name, default in defaults.items()
        if name in config and config[name] is not None
    }


def _checked(name: str, value: Any, default: Any) -> Any:
    """The value, if it is what the default is, and no larger than networks are."""
    if isinstance(value, list) and (default is None or isinstance(default, list | tuple | int)):
        inner = default[0] if isinstance(default, list | tuple) and default else None
        if len(value) > _MAX_ITEMS:
            raise _malformed(f"{name} in config.json has {len(value)} items; {_MAX_ITEMS} is the limit.")
        return [_checked(name, item, inner) for item in value]
    if isinstance(value, bool | str) or value is None:
        fits = default is None or isinstance(value, type(default))
        short = not isinstance(value, str) or len(value) <= _MAX_TEXT
        if fits and short:
            return value
    elif isinstance(value, int | float) and not isinstance(default, bool | str):
        whole = isinstance(value, int) or not isinstance(default, int)
        if whole and math.isfinite(value) and abs(value) <= _MAX_NUMBER:
            return value
    raise _malformed(
        f"{name} in config.json is {repr(value)[:60]}; expected is something like {default!r}, "
        f"numbers up to {_MAX_NUMBER:,}."
    )


def _class_count(config: Mapping[str, Any], state: State) -> int:
    """As many as there are names, else as the last stored bias or matrix has rows."""
    named = config.get("id2label") or config.get("num_labels")
    count = len(named) if isinstance(named, Mapping | Sequence) and not isinstance(named, str) else named
    if count is None:
        heads = [value for name, value in state.items() if name.startswith("classifier") and value.dim() == 2]
        count = heads[-1].shape[0] if heads else 2
    if not isinstance(count, int) or not 1 <= count <= _MAX_CLASSES:
        raise _malformed(f"config.json has {str(count)[:60]} classes; 1 to {_MAX_CLASSES:,} are possible.")
    return count


def _shape(fields: Mapping[str, Any]) -> tuple[int, int, int]:
    size = fields.get("image_size", _USUAL_SIDE)
    height, width = size if isinstance(size, list) and len(size) == 2 else (size, size)
    channels = fields.get("num_channels", 3)
    sides = (channels, height, width)
    if not all(isinstance(side, int) and 0 < side <= _MAX_NUMBER for side in sides):
        raise _malformed(f"config.json describes images of {list(sides)}.")
    return (channels, height, width)
