"""A basis from measured responses: reduced-rank regression in a metric that knows the loss.

Shapes: O out channels, I in channels times kernel area, R rank; all of one group, float64.
x is a patch, y = Wx the response, G = Cov(x), S a root of the output metric F, S'S = F.
Zhang et al. 2015 (arXiv 1505.06798) is the case S = 1 with the layer's own weights.
"""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

METRIC_FLOOR = 1e-4  # of the metric's largest eigenvalue: no output direction is free
LIFT = 1e-6  # of G's mean diagonal: directions that the images never took are told apart by the weights
POWER_STEPS = 30
RIDGE = 1e-3  # of G's mean diagonal: dead channels make G singular; 1e-5 to 1e-2 gave the same result


@dataclass(frozen=True)
class Metric:
    """S with S'S = F, and its inverse, (O, O): output errors e cost |S e|^2."""

    root: Tensor
    inverse: Tensor


def output_metric(fisher_OO: Tensor) -> Metric:
    """S'S = F + 1e-4 lmax 1, F the second moments of the gradients of the network's outputs.

    S is the transposed Cholesky factor: every root of F gives the same products, and this one costs a
    twentieth of the symmetric one. A zero F (a layer the outputs do not depend on differentiably) gives the
    plain metric, S = 1.
    """
    eye = torch.eye(len(fisher_OO), dtype=fisher_OO.dtype)
    top = largest_eigenvalue(fisher_OO)
    if top <= 0:
        return Metric(eye, eye)
    root = torch.linalg.cholesky(plus(fisher_OO, METRIC_FLOOR * top)).T
    return Metric(root, torch.linalg.solve_triangular(root, eye, upper=True))


def largest_eigenvalue(moments_II: Tensor) -> float:
    """Of a positive semidefinite matrix, by the power method: for floors, which need no digits beyond two."""
    vector_I = torch.randn(len(moments_II), generator=Generator().manual_seed(0), dtype=moments_II.dtype)
    size = 0.0
    for _ in range(POWER_STEPS):
        vector_I = moments_II @ (vector_I / vector_I.norm())
        size = float(vector_I.norm())
        if size <= 0:
            break
    return size


def regression(weight_OI: Tensor, gram_II: Tensor, cross_OI: Tensor) -> Tensor:
    """R = W + (Cov(t, x) - W G)(G + l 1)^-1, l = 1e-3 mean diag G: least squares of t on x, held near W."""
    ridge = RIDGE * float(gram_II.diagonal().mean())
    if ridge <= 0:
        return weight_OI  # the input never varies: nothing can be learnt from it
    factor = torch.linalg.cholesky(plus(gram_II, ridge))
    step_IO = torch.cholesky_solve((cross_OI - weight_OI @ gram_II).T, factor)
    return weight_OI + step_IO.T


def lifted(gram_II: Tensor) -> Tensor:
    """G and a little of every direction, so that there is a best one even where G is zero; 1 for a G of 0."""
    size = float(gram_II.diagonal().mean())
    return plus(gram_II, LIFT * size) if size > 0 else torch.eye(len(gram_II), dtype=gram_II.dtype)


def plus(gram_II: Tensor, amount: float) -> Tensor:
    """G + amount * 1, in one copy: the largest matrices take 170 MB."""
    found = gram_II.clone()
    found.diagonal().add_(amount)
    return found


def response_energies(weight_OI: Tensor, gram_II: Tensor, metric: Metric) -> Tensor:
    """Eigenvalues (descending, none below zero) of S W G W' S': the energy of each response direction.

    min(O, I) of them; the others are zero.
    """
    scaled_OI = metric.root @ weight_OI
    if len(scaled_OI) > gram_II.shape[0]:  # the same eigenvalues in the smaller of the two spaces
        scaled_OI = torch.linalg.qr(scaled_OI, mode="r").R
    return torch.linalg.eigvalsh(_covariance(scaled_OI, gram_II)).flip(0).clamp_min(0)


def basis_factors(weight_OI: Tensor, gram_II: Tensor, metric: Metric, rank: int) -> tuple[Tensor, Tensor]:
    """Basis (R, I) with orthonormal rows and mixing (O, R), minimising E|S(W - w F)x|^2.

    With V the top eigenvectors of S W G W' S' the product is S^-1 V V' S W; the rows are then made
    orthonormal, as the paper's are, which changes no output.
    """
    scaled_OI = metric.root @ weight_OI
    top_OR = _directions(scaled_OI, gram_II)[:, :rank]
    basis_IR, triangle_RR = torch.linalg.qr((top_OR.T @ scaled_OI).T)
    return basis_IR.T, metric.inverse @ top_OR @ triangle_RR.T


def _directions(scaled_OI: Tensor, gram_II: Tensor) -> Tensor:
    """Eigenvectors of A G A' as columns, the largest eigenvalue's first; min(O, I) of them."""
    if len(scaled_OI) <= len(gram_II):
        return torch.linalg.eigh(_covariance(scaled_OI, gram_II)).eigenvectors.flip(1)
    outer_OI, inner_II = torch.linalg.qr(scaled_OI)
    return outer_OI @ torch.linalg.eigh(_covariance(inner_II, gram_II)).eigenvectors.flip(1)


def _covariance(scaled_OI: Tensor, gram_II: Tensor) -> Tensor:
    found_OO = scaled_OI @ gram_II @ scaled_OI.T
    return (found_OO + found_OO.T) / 2
