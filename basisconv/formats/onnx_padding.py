"""Padding as ONNX says it: uneven, automatic, and what a transposed convolution takes off its output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import onnx
import torch.nn.functional as F
from onnx import NodeProto
from torch import Tensor

# The beginnings of all axes, then their ends (top, left, bottom, right): ONNX's order.
Padding = tuple[int, ...]
SAME: Final = (b"SAME_UPPER", b"SAME_LOWER")
_TRANSPOSED: Final[dict[int, Any]] = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def attributes(node: NodeProto) -> dict[str, Any]:
    """A node's attributes as Python values."""
    return {entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute}


def explicit_pads(node: NodeProto, axes: int = 2) -> Padding:
    """The `pads` of a convolution over so many axes; zeros where it has none."""
    return tuple(attributes(node).get("pads") or (0,) * (2 * axes))


def same_padding(
    size: Sequence[int], kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int], upper: bool
) -> Padding:
    """ONNX's SAME_UPPER and SAME_LOWER: output = ceil(input / stride); the odd one goes last or first."""
    axes = zip(size, kernel, stride, dilation, strict=True)
    totals = [max((-(-extent // s) - 1) * s + (k - 1) * d + 1 - extent, 0) for extent, k, s, d in axes]
    return _shared_out(totals, upper)


def pad_same(
    x: Tensor, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int], upper: bool
) -> Tensor:
    """Automatic padding of images whose size the file leaves open."""
    return F.pad(x, torch_order(same_padding(x.shape[2:], kernel, stride, dilation, upper)))


def same_crop(
    kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int], extra: Sequence[int], upper: bool
) -> Padding:
    """What SAME_UPPER and SAME_LOWER take off a transposed convolution: output = input * stride.

    `extra`: its output_padding.
    """
    axes = zip(kernel, stride, dilation, extra, strict=True)
    return _shared_out([(k - 1) * d + 1 + e - s for k, s, d, e in axes], upper)


def crop_to(y: Tensor, size: Sequence[int], upper: bool) -> Tensor:
    """A transposed convolution's full output, cut to the size that the file names."""
    return F.pad(y, torch_order([-pad for pad in _shared_out([a - b for a, b in _axes(y, size)], upper)]))


def _axes(y: Tensor, size: Sequence[int]) -> list[tuple[int, int]]:
    return list(zip(y.shape[2:], size, strict=True))


def _shared_out(totals: Sequence[int], upper: bool) -> Padding:
    """Totals of each axis as beginnings and ends; the odd one goes to the end (upper) or the beginning."""
    small, large = [total // 2 for total in totals], [total - total // 2 for total in totals]
    return (*small, *large) if upper else (*large, *small)


def conv_transpose(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    strides: Sequence[int],
    dilations: Sequence[int],
    group: int,
    pads: Sequence[int] | None,
    output_padding: Sequence[int],
    auto_pad: str,
    output_shape: Sequence[int] | None,
    _kernel_shape: Sequence[int] | None,
) -> Tensor:
    """ConvTranspose as the standard says it, with the arguments of onnx2fx, whose own is wrong where the
    padding is uneven (0.0.1 adds the difference at the end instead of taking it off).
    """
    axes = weight.dim() - 2
    steps, gaps, extra = (_each(values, axes) for values in (strides, dilations, output_padding))
    y: Tensor = _TRANSPOSED[axes](x, weight, bias, steps, 0, extra, group, gaps)
    if output_shape is not None:
        return crop_to(y, output_shape[-axes:], auto_pad == "SAME_UPPER")
    if auto_pad.encode() in SAME:
        pads = same_crop(weight.shape[2:], steps, gaps, extra, auto_pad == "SAME_UPPER")
    return F.pad(y, torch_order([-pad for pad in pads or (0,) * (2 * axes)]))


def _each(values: Sequence[int], axes: int) -> tuple[int, ...]:
    return tuple(values) * axes if len(values) == 1 else tuple(values)


def ends(pads: Sequence[int]) -> tuple[Padding, Padding]:
    half = len(pads) // 2
    return tuple(pads[:half]), tuple(pads[half:])


def torch_order(pads: Sequence[int]) -> Padding:
    """As F.pad takes them: beginning and end of the last axis, then of the one before."""
    first, last = ends(pads)
    return tuple(pad for pair in reversed(list(zip(first, last, strict=True))) for pad in pair)
