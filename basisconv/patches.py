"""A convolution or linear layer as a matrix on rows: patches in, responses out.

Shapes: N images, P positions of one image, G groups, O out channels, I in channels times kernel area
(both per group), M = N * P rows.
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from basisconv.basis.weights import grouped_weight

FEWEST, MOST = 64, 256  # positions of an image that are looked at: neighbours say nearly the same


WIDE = 8192  # inputs of one response, beyond which their covariance (0.5 GB) is not formed


def is_wide(layer: nn.Conv2d | nn.Linear) -> bool:
    """Whether the layer is fitted in the space of its own responses instead of its patches.

    Its "input" is then Wx and its "weight" the identity: outputs are recombined, filters are not.
    """
    return layer.weight[0].numel() > WIDE


def seen_width(layer: nn.Conv2d | nn.Linear) -> int:
    """I of seen_rows."""
    return grouped_weight(layer).shape[1] if is_wide(layer) else layer.weight[0].numel()


def seen_rows(layer: nn.Conv2d | nn.Linear, x: Tensor, positions: Tensor) -> Tensor:
    """(G, M, I) of what the layer is fitted on: patches, or Wx for a wide layer (then I = O)."""
    if not is_wide(layer):
        return input_rows(layer, x, positions)
    response = layer.forward(x)  # past any hooks
    rows_GMO = response_rows(layer, response, positions)
    return rows_GMO if layer.bias is None else rows_GMO - layer.bias.reshape(len(rows_GMO), 1, -1)


def seen_weight(layer: nn.Conv2d | nn.Linear) -> Tensor:
    """(G, O, I) float64: the weight as it acts on seen_rows."""
    weight_GOI = grouped_weight(layer)
    if not is_wide(layer):
        return weight_GOI
    return torch.eye(weight_GOI.shape[1], dtype=torch.float64).expand(len(weight_GOI), -1, -1)


def to_patches(layer: nn.Conv2d | nn.Linear, rows_GRI: Tensor) -> Tensor:
    """Filters on seen_rows as filters on patches."""
    return rows_GRI @ grouped_weight(layer) if is_wide(layer) else rows_GRI


def choose_positions(layer: nn.Conv2d | nn.Linear, response: Tensor, generator: Generator) -> Tensor:
    """Indices of one image's output positions, drawn without repetition: 64 to 256, a quarter of the inputs.

    ResNet-20 at half its operations: the same accuracy as with 256 everywhere, in two thirds of the time.
    """
    total = positions_of(layer, response)
    wanted = min(MOST, max(FEWEST, layer.weight[0].numel() // 4))
    if total <= wanted:
        return torch.arange(total, device=response.device)
    return torch.randperm(total, generator=generator)[:wanted].sort().values.to(response.device)


def positions_of(layer: nn.Conv2d | nn.Linear, response: Tensor) -> int:
    """Places of one image (one row of the batch axis) at which the layer answers."""
    return _batched(layer, response)[0].numel() // layer.weight.shape[0]


def _batched(layer: nn.Conv2d | nn.Linear, x: Tensor) -> Tensor:
    """torch's layers also take a single image or row; here it is a batch of one."""
    return x[None] if x.dim() == (1 if isinstance(layer, nn.Linear) else 3) else x


def response_rows(layer: nn.Conv2d | nn.Linear, response: Tensor, positions: Tensor) -> Tensor:
    """(G, M, O) of the layer's raw output: N x C x H x W, or N x ... x C for a linear layer."""
    response = _batched(layer, response)
    if isinstance(layer, nn.Linear):
        return response.reshape(len(response), -1, layer.out_features)[:, positions].flatten(0, 1)[None]
    picked_NCP = response.flatten(2)[:, :, positions]
    return _rows(picked_NCP.unflatten(1, (layer.groups, -1)))


def input_rows(layer: nn.Conv2d | nn.Linear, x: Tensor, positions: Tensor) -> Tensor:
    """(G, M, I): the patches that the responses at `positions` see, in the order of the weight's entries."""
    x = _batched(layer, x)
    if isinstance(layer, nn.Linear):
        return x.reshape(len(x), -1, layer.in_features)[:, positions].flatten(0, 1)[None]
    x = _padded(layer, x)
    for axis in (0, 1):
        kernel, dilation = layer.kernel_size[axis], layer.dilation[axis]
        x = x.unfold(2 + axis, dilation * (kernel - 1) + 1, layer.stride[axis])[..., ::dilation]
    width = x.shape[3]
    patches_NCPhw = x[:, :, positions // width, positions % width]  # only the chosen patches are copied
    grouped = patches_NCPhw.unflatten(1, (layer.groups, -1)).movedim(3, 2)  # N, G, P, C/G, h, w
    return grouped.flatten(3).transpose(0, 1).flatten(1, 2)


def _rows(values_NGOP: Tensor) -> Tensor:
    return values_NGOP.permute(1, 0, 3, 2).flatten(1, 2)


def _padded(conv: nn.Conv2d, x: Tensor) -> Tensor:
    if conv.padding == "valid":
        return x
    pads: list[int] = []
    for axis in (1, 0):  # F.pad names the last axis first
        if conv.padding == "same":
            total = conv.dilation[axis] * (conv.kernel_size[axis] - 1)
            pads += [total // 2, total - total // 2]
        else:
            pads += [cast(tuple[int, int], conv.padding)[axis]] * 2
    return F.pad(x, pads, "constant" if conv.padding_mode == "zeros" else conv.padding_mode)
