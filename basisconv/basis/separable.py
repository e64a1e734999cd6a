"""Two one-dimensional convolutions in the place of one: closed form, then a short refinement.

Shapes: O out channels, I in channels, A taps along the first factor's axis, B along the second's, R rank.
Written for the first factor along the kernel's first axis; the other order is the same on transposed taps.
R~ = H Z(V): V (R, I, A) the first factor, H (O, R, B) the second; G = Cov(x) over (I, A, B); float64.
"""

import torch
from torch import Tensor

from basisconv.basis.activations import Metric

JITTER = 1e-6  # of G's mean diagonal: keeps the inverses of singular covariances finite
REFINE_STEPS = 60  # of L-BFGS; the error falls by 5 to 45 %
REFINE_GAIN = 1e-4  # of E in one step, below which L-BFGS stops
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
    """All ranks of one layer: target weight W, patch covariance G and output metric S are fixed."""

    def __init__(self, weight_OIAB: Tensor, gram: Tensor, metric: Metric) -> None:
        out, inputs, a, b = weight_OIAB.shape
        self.shape = (out, inputs, a, b)
        self.metric = metric
        self.gram = _definite(gram)
        self.scaled = metric.root @ weight_OIAB.reshape(out, -1)  # S W, (O, I*A*B)
        self.pull = (self.scaled @ self.gram).reshape(out, inputs * a, b)  # S W G
        self.total = float((self.pull.reshape(out, -1) * self.scaled).sum())  # tr S W G W' S
        self.root, self.taps = self._start()

    @property
    def max_rank(self) -> int:
        return len(self.taps)

    def _start(self) -> tuple[Tensor, Tensor]:
        """C^(1/2) and V = U' C^(-1/2), C the mean covariance of one column of taps; best rank first."""
        out, inputs, a, b = self.shape
        columns = self.gram.reshape(inputs * a, b, inputs * a, b)
        values, vectors = torch.linalg.eigh(torch.einsum("xbyb->xy", columns) / b)
        scale = values.clamp_min(values[-1] * JITTER).sqrt()
        root, inverse = (vectors * scale) @ vectors.T, (vectors / scale) @ vectors.T
        matrix = self.scaled.reshape(out, inputs * a, b).permute(1, 2, 0).reshape(inputs * a, b * out)
        whitened = root @ matrix
        left = torch.linalg.eigh(whitened @ whitened.T).eigenvectors.flip(1)[:, : min(whitened.shape)]
        return root, left.T @ inverse

    def _normal(self, rank: int) -> tuple[Tensor, Tensor]:
        """Z G Z' (RB, RB) and Z G W' S (RB, O) for the first `rank` taps; nested in `rank`."""
        out, inputs, a, b = self.shape
        taps = self.taps[:rank]
        columns = self.gram.reshape(inputs * a, b, inputs * a, b)
        half = torch.tensordot(taps, columns, dims=([1], [0]))  # R, B, IA, B
        square = torch.einsum("rbxc,sx->rbsc", half, taps).reshape(rank * b, rank * b)
        pull = torch.einsum("rx,oxb->rbo", taps, self.pull).reshape(rank * b, out)
        return square, pull

    def errors(self, up_to: int) -> Tensor:
        """E(r) = tr S(W - R~)G(W - R~)'S of the closed form for r = 0 .. up_to, from one Cholesky factor."""
        b, up_to = self.shape[3], min(up_to, self.max_rank)
        square, pull = self._normal(up_to)
        factor, scale = _cholesky(square)
        explained = torch.linalg.solve_triangular(factor, scale * pull, upper=False)
        gains = explained.square().sum(1).reshape(up_to, b).sum(1).cumsum(0)
        return torch.cat([gains.new_zeros(1), gains]).neg_().add_(self.total).clamp_min_(0)

    def factors(self, rank: int) -> tuple[Tensor, Tensor]:
        """Taps (R, I, A) and mixing (O, R, B): closed form, refined by L-BFGS, the better of the two."""
        out, inputs, a, b = self.shape
        square, pull = self._normal(rank)
        factor, scale = _cholesky(square)
        scaled_mixing = (scale * torch.cholesky_solve(scale * pull, factor)).T.reshape(out, rank, b)
        taps, scaled_mixing = self._refine(self.taps[:rank], scaled_mixing)
        mixing = torch.tensordot(self.metric.inverse, scaled_mixing, dims=1)
        return _balance(taps.reshape(rank, inputs, a), mixing)

    def error(self, taps: Tensor, scaled_mixing: Tensor) -> Tensor:
        """E of taps (R, I*A) and S H (O, R, B)."""
        product = torch.einsum("orb,rx->oxb", scaled_mixing, taps).reshape(self.scaled.shape)
        rest = self.scaled - product
        return ((rest @ self.gram) * rest).sum()

    def _refine(self, taps: Tensor, scaled_mixing: Tensor) -> tuple[Tensor, Tensor]:
        """L-BFGS on E in the variables V C^(1/2) and S H, in which E is well conditioned."""
        start = (taps, scaled_mixing)
        before = float(self.error(*start))
        steps = int(min(REFINE_STEPS, REFINE_WORK / (1.3 * self.scaled.numel() * len(self.gram))))
        if before <= 1e-12 * self.total or steps < 5:
            return start
        inverse = torch.linalg.inv(self.root)
        whitened, mixing = (taps @ self.root).requires_grad_(), scaled_mixing.clone().requires_grad_()
        search = torch.optim.LBFGS(
            [whitened, mixing], max_iter=steps, tolerance_change=REFINE_GAIN, line_search_fn="strong_wolfe"
        )

        def loss() -> Tensor:
            search.zero_grad()
            value = self.error(whitened @ inverse, mixing) / before
            value.backward()
            return value

        with torch.enable_grad():
            search.step(loss)
        refined = (whitened.detach() @ inverse, mixing.detach())
        return refined if float(self.error(*refined)) < before else start


def _definite(gram: Tensor) -> Tensor:
    """G with just enough added to its diagonal, at least JITTER of its mean, to be positive definite.

    Products in float32 leave eigenvalues of about -1e-6 where inputs depend on each other (a layer before it
    cut to rank 1, say), and a refinement follows such a direction to infinity. An input that never varies
    says nothing: then the weights alone decide.
    """
    size, eye = gram.diagonal().mean(), torch.eye(len(gram), dtype=gram.dtype)
    if size <= 0:
        return eye
    jitter = JITTER
    while bool(torch.linalg.cholesky_ex(gram + (jitter / 2) * size * eye).info) and jitter < 1:
        jitter *= 10
    return gram + jitter * size * eye


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
