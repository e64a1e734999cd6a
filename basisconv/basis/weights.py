"""The paper's basis: the truncated decomposition of the layer's own filters (arXiv 1906.04509).

Shapes: G groups, O out channels, I in channels times kernel area, R rank; O and I are those of one group.
"""

import torch
from torch import Tensor, nn

from basisconv.errors import InvalidRequest


def grouped_weight(layer: nn.Conv2d | nn.Linear) -> Tensor:
    """The weight as one float64 matrix per group on the CPU, (G, O, I): rows are flattened filters."""
    groups = layer.groups if isinstance(layer, nn.Conv2d) else 1
    weight = layer.weight.detach().double().cpu()
    return weight.reshape(groups, weight.shape[0] // groups, -1)


def weight_factors(layer: nn.Conv2d | nn.Linear, rank: int) -> tuple[Tensor, Tensor]:
    """Best rank-R basis and mixing in the Frobenius norm (Eckart-Young): (G, R, I) and (G, O, R).

    H = U S V', F = first R rows of V', w = H F'. F has orthonormal rows, the largest entry of each
    positive, so the same filters always give the same factors. Works on rank-deficient and zero weights:
    the surplus rows are then some orthonormal completion and their mixing is zero.

    Raises InvalidRequest for a rank outside [1, min(O, I)], or weights that are not finite.
    """
    weight_GOI = grouped_weight(layer)
    largest = min(weight_GOI.shape[1:])
    if not 1 <= rank <= largest:
        raise InvalidRequest(
            f"rank must be in [1, {largest}] for weight {tuple(layer.weight.shape)}, got {rank}"
        )
    if not torch.isfinite(weight_GOI).all():
        raise InvalidRequest(f"weight {tuple(layer.weight.shape)} holds NaN or infinity")
    basis_GRI = fix_signs(torch.linalg.svd(weight_GOI, full_matrices=False).Vh[:, :rank])
    return basis_GRI, weight_GOI @ basis_GRI.mT


def weight_energies(layer: nn.Conv2d | nn.Linear) -> Tensor:
    """Energies s_i^2 of the filters, largest first, summed over groups: (min(O, I),) float64."""
    return torch.linalg.svdvals(grouped_weight(layer)).square().sum(0)


def fix_signs(rows: Tensor) -> Tensor:
    """Each row (last axis) with the sign that makes its largest entry positive."""
    peak = rows.gather(-1, rows.abs().argmax(-1, keepdim=True))
    return torch.where(peak < 0, -rows, rows)
