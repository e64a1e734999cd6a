"""Two one-dimensional convolutions in the place of one: closed form, then a short refinement.

Shapes: O out channels, I in channels, A taps along the first factor's axis, B along the second's, R rank.
Written for the first factor along the kernel's first axis; the other order is the same on transposed taps.
R~ = H Z(V): V (R, I, A) the first factor, H (O, R, B) the second; G = Cov(x) over (I, A, B); float64.
S as in activations.py, S'S the output metric.
"""

import torch
from torch import Tensor

from basisconv.basis.activations import Metric, largest_eigenvalue, plus

JITTER = 1e-6  # of G's mean diagonal: keeps the inverses of singular covariances finite
REFINE_STEPS = 20  # of L-BFGS; the error falls by 5 to 45 %
FEWEST_STEPS = 3
REFINE_WORK = 2e11  # multiply-accumulates one layer's refinement may take, about 10 s on one core


def separate(weight_OIAB: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The closest pair in the Frobenius norm: taps (R, I, A) and mixing (O, R, B), balanced in size."""
    out, inputs, a, b = weight_OIAB.shape
    matrix = weight_OIAB.double().permute(1, 2, 3, 0).reshape(inputs * a, b * out)
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    root = values[:rank].sqrt()
    taps = (left[:, :rank] * root).T.reshape(-1, inputs, a)
    mixing = (right[:rank] * root[:, None]).reshape(-1, b, out).permute(2, 0, 1)
    return taps, mixing


class Separation:
    """All ranks of one layer: target weight W, patch covariance G and output metric S are fixed.

    `scaled` is S W and `pull` S W G, (O, I*A*B); `shape` (O, I, A, B).
    """

    def __init__(
        self, shape: tuple[int, ...], scaled: Tensor, gram: Tensor, pull: Tensor, metric: Metric
    ) -> None:
        out, inputs, a, b = shape
        self.shape, self.metric = (out, inputs, a, b), metric
        self.gram, self.scaled = gram, scaled
        self.pull = pull.reshape(out, inputs * a, b)
        self.total = float((pull * scaled).sum())  # tr S W G W' S'
        self.root, self.taps = self._start()

    @classmethod
    def of(cls, weight_OIAB: Tensor, gram: Tensor, metric: Metric) -> "Separation":
        gram, scaled = _definite(gram), metric.root @ weight_OIAB.reshape(len(weight_OIAB), -1)
        return cls(weight_OIAB.shape, scaled, gram, scaled @ gram, metric)

    def turned(self) -> "Separation":
        """The same with the first factor along the kernel's second axis: on transposed taps."""
        out, inputs, a, b = self.shape

        def transposed(rows: Tensor) -> Tensor:
            return rows.reshape(-1, inputs, a, b).mT.reshape(-1, inputs * a * b)

        gram = transposed(transposed(self.gram).T)
        pull = transposed(self.pull.reshape(out, -1))
        return Separation((out, inputs, b, a), transposed(self.scaled), gram, pull, self.metric)

    @property
    def max_rank(self) -> int:
        return len(self.taps)

    def _start(self) -> tuple[Tensor, Tensor]:
        """K with K K' = C and V = U' K^-1, C the mean covariance of one column of taps; best rank first."""
        out, inputs, a, b = self.shape
        columns = self.gram.reshape(inputs * a, b, inputs * a, b)
        column = torch.einsum("xbyb->xy", columns) / b
        root = torch.linalg.cholesky(plus(column, JITTER * largest_eigenvalue(column)))
        matrix = self.scaled.reshape(out, inputs * a, b).permute(1, 2, 0).reshape(inputs * a, b * out)
        whitened = root.T @ matrix
        left = torch.linalg.eigh(whitened @ whitened.T).eigenvectors.flip(1)[:, : min(whitened.shape)]
        return root, _divided(left.T, root)

    def _normal(self, taps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Z G (R, B, I*A, B), Z G Z' (RB, RB) and Z G W' S' (RB, O) for `taps` (R, I*A); nested in R."""
        out, inputs, a, b = self.shape
        rank = len(taps)
        columns = self.gram.reshape(inputs * a, b, inputs * a, b)
        half = torch.tensordot(taps, columns, dims=([1], [0]))
        square = torch.einsum("rbxc,sx->rbsc", half, taps).reshape(rank * b, rank * b)
        pull = torch.einsum("rx,oxb->rbo", taps, self.pull).reshape(rank * b, out)
        return half, square, pull

    def errors(self, up_to: int) -> Tensor:
        """E(r) = tr S(W - R~)G(W - R~)'S of the closed form for r = 0 .. up_to, from one Cholesky factor."""
        b, up_to = self.shape[3], min(up_to, self.max_rank)
        _, square, pull = self._normal(self.taps[:up_to])
        factor, scale = _cholesky(square)
        explained = torch.linalg.solve_triangular(factor, scale * pull, upper=False)  # (RB, O)
        gains = explained.square().sum(1).reshape(up_to, b).sum(1).cumsum(0)
        return torch.cat([gains.new_zeros(1), gains]).neg_().add_(self.total).clamp_min_(0)

    def factors(self, rank: int) -> tuple[Tensor, Tensor]:
        """Taps (R, I, A) and mixing (O, R, B): closed form, refined by L-BFGS, the better of the two."""
        _, inputs, a, _ = self.shape
        taps, scaled_mixing = self._refine(self.taps[:rank])
        mixing = torch.tensordot(self.metric.inverse, scaled_mixing, dims=1)
        return _balance(taps.reshape(rank, inputs, a), mixing)

    def _solved(self, taps: Tensor) -> tuple[Tensor, Tensor, float]:
        """Z G, the best H' S' (RB, O) for these taps and what they then explain of E.

        H = W G Z'(Z G Z')^-1.
        """
        half, square, pull = self._normal(taps)
        factor, scale = _cholesky(square)
        mixing = scale * torch.cholesky_solve(scale * pull, factor)
        return half, mixing, float((mixing * pull).sum())

    def _best(self, taps: Tensor) -> tuple[Tensor, float]:
        """S H (O, R, B), the best for these taps, and E with it."""
        _, mixing, explained = self._solved(taps)
        return mixing.T.reshape(self.shape[0], len(taps), -1), self.total - explained

    def error(self, taps: Tensor, scaled_mixing: Tensor) -> Tensor:
        """E of taps (R, I*A) and S H (O, R, B)."""
        product = torch.einsum("orb,rx->oxb", scaled_mixing, taps).reshape(self.scaled.shape)
        rest = self.scaled - product
        return ((rest @ self.gram) * rest).sum()

    def _slope(self, taps: Tensor) -> tuple[float, Tensor]:
        """E with the best second factor for these taps, and its gradient: -2 H (S W G - S H Z G)'.

        By hand: what Z G costs, automatic differentiation would pay three times.
        """
        out, inputs, a, b = self.shape
        half, mixing, explained = self._solved(taps)
        answered = (mixing.T @ half.reshape(len(mixing), -1)).reshape(out, inputs * a, b)
        slope = torch.einsum("rbo,oxb->rx", mixing.reshape(len(taps), b, out), answered - self.pull)
        return self.total - explained, 2 * slope

    def _refine(self, taps: Tensor) -> tuple[Tensor, Tensor]:
        """L-BFGS on E over the taps alone, as V K, in which E is well conditioned.

        The second factor follows from the taps in closed form (variable projection: Golub and Pereyra 1973);
        20 steps then end below 60 on both factors at once.
        """
        mixing, before = self._best(taps)
        start = (taps, mixing)
        _, inputs, a, b = self.shape
        steps = int(min(REFINE_STEPS, REFINE_WORK / (4 * len(taps) * (inputs * a * b) ** 2)))
        if before <= 1e-12 * self.total or steps < FEWEST_STEPS:
            return start
        whitened = (taps @ self.root).requires_grad_()
        search = torch.optim.LBFGS([whitened], max_iter=steps, line_search_fn="strong_wolfe")

        @torch.no_grad()
        def loss() -> float:
            value, slope = self._slope(_divided(whitened, self.root))
            whitened.grad = (_divided(slope, self.root.T, upper=True) / before).contiguous()
            return value / before

        search.step(loss)
        found = _divided(whitened.detach(), self.root)
        mixing, after = self._best(found)
        return (found, mixing) if after < before else start


def _divided(rows: Tensor, triangle: Tensor, upper: bool = False) -> Tensor:
    """rows K^-1."""
    return torch.linalg.solve_triangular(triangle, rows, upper=upper, left=False)


def _definite(gram: Tensor) -> Tensor:
    """G with just enough added to its diagonal, at least JITTER of its mean, to be positive definite.

    Products in float32 leave eigenvalues of about -1e-6 where inputs depend on each other (a layer before it
    cut to rank 1, say), and a refinement follows such a direction to infinity. An input that never varies
    says nothing: then the weights alone decide.
    """
    size = float(gram.diagonal().mean())
    if size <= 0:
        return torch.eye(len(gram), dtype=gram.dtype)
    jitter = JITTER
    while bool(torch.linalg.cholesky_ex(plus(gram, jitter / 2 * size)).info) and jitter < 1:
        jitter *= 10
    return plus(gram, jitter * size)


def _cholesky(square: Tensor) -> tuple[Tensor, Tensor]:
    """L and a column d with L L' = d A d + a little: the diagonal is scaled to 1, as rows differ by 1e6."""
    scale = square.diagonal().clamp_min(torch.finfo(square.dtype).tiny).rsqrt()[:, None]
    scaled, eye = scale * square * scale.T, torch.eye(len(square), dtype=square.dtype)
    jitter = 1e-10
    factor, failed = torch.linalg.cholesky_ex(scaled + jitter * eye)
    while bool(failed) and jitter < 1e-2:
        jitter *= 10
        factor, failed = torch.linalg.cholesky_ex(scaled + jitter * eye)
    return factor, scale


def _balance(taps: Tensor, mixing: Tensor) -> tuple[Tensor, Tensor]:
    """Give both factors of each rank the same root mean square: one learning rate then suits both."""
    of_taps = taps.square().mean((1, 2)).sqrt()
    of_mixing = mixing.square().mean((0, 2)).sqrt()
    scale = torch.where((of_taps > 0) & (of_mixing > 0), (of_mixing / of_taps).sqrt(), 1.0)
    return taps * scale[:, None, None], mixing / scale[None, :, None]
