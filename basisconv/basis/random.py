"""The basis of a network trained from scratch: random orthogonal filters that a seed remembers.

BasisConv (arXiv 1906.04509) trains such networks with fixed filters and learns only their 1x1 mixing, so
a file needs no filters at all. What is drawn here must be the same for ever and everywhere: the bits come
from SHAKE-256, not from a library's generator, and the last digits, where linear algebra differs from
machine to machine, are rounded away.

Shapes: G groups, R filters, I in channels times kernel area; R and I are those of one group.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

SCHEME = "basisconv-random-1"  # a change of anything below is another scheme
GRID = 2.0**-20  # of the entries; float64's own noise is 10^9 times smaller, float32 holds them exactly


@dataclass(frozen=True)
class Drawn:
    """Where a random basis comes from: the network's seed and the layer's own key (its path)."""

    seed: int
    key: str


def random_basis(drawn: Drawn, groups: int, rank: int, inputs: int) -> Tensor:
    """Random orthonormal filters, uniform over all such (Haar): (G, R, I) float64, row norms 1.

    More filters than inputs (R > I) come in blocks: each block of I rows is an orthonormal basis of its
    own, together they are a tight frame (F'F = (R/I) 1 where I divides R). Depends on `drawn` and the
    group alone: not on other layers, the device, torch's generator; and the first rows of a larger basis
    are those of a smaller one. Rounded to multiples of 2^-20: rows are orthonormal up to about 1e-6.
    """
    bases = [_one_group(f"{SCHEME}/{drawn.seed}/{drawn.key}/{g}", rank, inputs) for g in range(groups)]
    return torch.stack(bases)


def _one_group(name: str, rank: int, inputs: int) -> Tensor:
    rows_RI = torch.from_numpy(_gaussians(name, rank * inputs).reshape(rank, inputs))
    basis_RI = torch.cat([_orthonormal(block) for block in rows_RI.split(inputs)])
    return (basis_RI / GRID).round() * GRID


def _orthonormal(rows_RI: Tensor) -> Tensor:
    """Gram-Schmidt from the first row on; the signs are those that make it unique."""
    q_IR, r_RR = torch.linalg.qr(rows_RI.mT)
    return (q_IR * r_RR.diagonal().sign()).mT


def _gaussians(name: str, count: int) -> NDArray[np.float64]:
    """Independent standard normal numbers (Box-Muller) out of the name alone."""
    pairs = (count + 1) // 2
    bits = np.frombuffer(hashlib.shake_256(name.encode()).digest(16 * pairs), "<u8").reshape(pairs, 2)
    uniform = ((bits >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53  # in (0, 1)
    radius, angle = np.sqrt(-2 * np.log(uniform[:, 0])), 2 * np.pi * uniform[:, 1]
    found = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return found.reshape(-1)[:count]
