"""A basis from measured responses: reduced-rank regression in a metric that knows the loss.

Shapes: O out channels, I in channels times kernel area, R rank; all of one group, float64.
x is a patch, y = Wx the response, G = Cov(x), S the square root of the output metric F.
Zhang et al. 2015 (arXiv 1505.06798) is the case S = 1 with the layer's own weights.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

METRIC_FLOOR = 1e-4  # of the metric's largest eigenvalue: no output direction is free
LIFT = 1e-6  # of G's mean diagonal: directions that the images never took are told apart by the weights
RIDGE = 1e-3  # of G's mean diagonal: dead channels make G singular; 1e-5 to 1e-2 gave the same result


@dataclass(frozen=True)
class Metric:
    """S and its inverse, (O, O): output errors e cost |S e|^2."""

    root: Tensor
    inverse: Tensor


def output_metric(fisher_OO: Tensor) -> Metric:
    """S = (F + 1e-4 lmax 1)^(1/2) from the second moments F of the gradients of the network's outputs.

    A zero F (a layer the outputs do not depend on differentiably) gives the plain metric, S = 1.
    """
    values, vectors = torch.linalg.eigh(fisher_OO)
    top = values[-1]
    if top <= 0:
        values, vectors = torch.ones_like(values), torch.eye(len(values), dtype=values.dtype)
    else:
        values = values.clamp_min(0) + METRIC_FLOOR * top
    root = values.sqrt()
    return Metric((vectors * root) @ vectors.T, (vectors / root) @ vectors.T)


def regression(weight_OI: Tensor, gram_II: Tensor, cross_OI: Tensor) -> Tensor:
    """R = W + (Cov(t, x) - W G)(G + l 1)^-1, l = 1e-3 mean diag G: least squares of t on x, held near W."""
    ridge = RIDGE * gram_II.diagonal().mean()
    if ridge <= 0:
        return weight_OI  # the input never varies: nothing can be learnt from it
    factor = torch.linalg.cholesky(gram_II + ridge * torch.eye(len(gram_II), dtype=gram_II.dtype))
    step_IO = torch.cholesky_solve((cross_OI - weight_OI @ gram_II).T, factor)
    return weight_OI + step_IO.T


def lifted(gram_II: Tensor) -> Tensor:
    """G and a little of every direction, so that there is a best one even where G is zero; 1 for a G of 0."""
    size, eye = gram_II.diagonal().mean(), torch.eye(len(gram_II), dtype=gram_II.dtype)
    return gram_II + LIFT * size * eye if size > 0 else eye


def response_spectrum(weight_OI: Tensor, gram_II: Tensor, metric: Metric) -> tuple[Tensor, Tensor]:
    """Eigenvalues (descending) and eigenvectors of S W G W' S: the energy of each response direction."""
    scaled_OI = metric.root @ weight_OI
    return spectrum(scaled_OI @ gram_II @ scaled_OI.T)


def spectrum(covariance_OO: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues in descending order, none below zero, and their eigenvectors as columns."""
    values, vectors = torch.linalg.eigh((covariance_OO + covariance_OO.T) / 2)
    return values.flip(0).clamp_min(0), vectors.flip(1)


def basis_factors(
    weight_OI: Tensor, responses_OO: Tensor, metric: Metric, rank: int
) -> tuple[Tensor, Tensor]:
    """Basis (R, I) with orthonormal rows and mixing (O, R), minimising E|S(W - w F)x|^2.

    `responses_OO` is S W G W' S. With V its top eigenvectors the product is S^-1 V V' S W; the rows are
    then made orthonormal, as the paper's are, which changes no output.
    """
    top_OR = spectrum(responses_OO)[1][:, :rank]
    basis_IR, triangle_RR = torch.linalg.qr((top_OR.T @ metric.root @ weight_OI).T)
    return basis_IR.T, metric.inverse @ top_OR @ triangle_RR.T
