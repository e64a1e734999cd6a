"""What calibration images tell about each layer: streamed, so memory does not grow with their number.

Shapes: G groups, O out channels, I in channels times kernel area (both per group), M rows.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Generator, Tensor, nn

from basisconv.cost import evaluating
from basisconv.outputs import output_tensors, responses, widened
from basisconv.patches import choose_positions, positions_of, response_rows, seen_rows
from basisconv.watch import layer_input

Images = Callable[[], Iterator[Tensor]]
Plain = nn.Conv2d | nn.Linear
STRIP = 512  # rows of a symmetric product at once


@dataclass(frozen=True)
class Covariances:
    """Float64, on the CPU, per group: inputs x as the layer sees them, targets t as it should answer."""

    mean_x: Tensor  # (G, I)
    mean_t: Tensor  # (G, O)
    gram: Tensor  # Cov(x), (G, I, I)
    cross: Tensor  # Cov(t, x), (G, O, I)
    variance_t: Tensor  # (G, O)

    @property
    def finite(self) -> bool:
        parts = (self.mean_x, self.mean_t, self.gram, self.cross)
        return all(bool(torch.isfinite(part).all()) for part in parts)


@dataclass
class Moments:
    """Streamed means and covariances of rows x and t, summed in float64 around the first batch's mean.

    The shift keeps float32 products exact enough where means are large (raw 0..255 input).
    """

    rows: int = 0
    _shift_x: Tensor = field(default_factory=lambda: torch.empty(0))
    _shift_t: Tensor = field(default_factory=lambda: torch.empty(0))
    _sums: dict[str, Tensor] = field(default_factory=dict)

    def add(self, x_GMI: Tensor, t_GMO: Tensor | None = None) -> None:
        x_GMI = widened(x_GMI)
        t_GMO = x_GMI[..., :0] if t_GMO is None else widened(t_GMO)
        if not self.rows:
            self._shift_x, self._shift_t = x_GMI.mean(1, keepdim=True), t_GMO.mean(1, keepdim=True)
        x, t = x_GMI - self._shift_x, t_GMO - self._shift_t
        self.rows += x.shape[1]
        parts = {"x": x.sum(1), "t": t.sum(1), "tx": t.mT @ x, "tt": t.square().sum(1)}
        for name, part in parts.items():
            if name in self._sums:
                self._sums[name].add_(part.cpu())
            else:
                self._sums[name] = part.double().cpu()
        if "xx" not in self._sums:
            self._sums["xx"] = torch.zeros(len(x), x.shape[2], x.shape[2], dtype=torch.float64)
        add_squares(self._sums["xx"], x)

    def covariances(self) -> Covariances:
        mirror_(self._sums["xx"])
        mean = {name: total / self.rows for name, total in self._sums.items()}
        x, t = mean["x"], mean["t"]
        return Covariances(
            mean_x=self._shift_x.double().cpu().squeeze(1) + x,
            mean_t=self._shift_t.double().cpu().squeeze(1) + t,
            gram=mean["xx"] - x[:, :, None] * x[:, None],
            cross=mean["tx"] - t[:, :, None] * x[:, None],
            variance_t=(mean["tt"] - t.square()).clamp_min(0),
        )


def add_squares(total_GII: Tensor, rows_GMI: Tensor, scale: float = 1.0) -> None:
    """Add scale * X'X, summed in the rows' precision, to a float64 total on the CPU; mirror_ ends the sum.

    Left of the diagonal, what the right side says is left out, strip by strip: half of the work.
    """
    for strip, rest in _strips(len(total_GII[0])):
        product = rows_GMI[..., strip].mT @ rows_GMI[..., rest]
        total_GII[:, strip, rest].add_(product.cpu(), alpha=scale)


def mirror_(total_GII: Tensor) -> Tensor:
    """Give the left side of the diagonal what stands on the right."""
    for strip, _ in _strips(len(total_GII[0])):
        below = slice(strip.stop, None)
        total_GII[:, below, strip] = total_GII[:, strip, below].mT
    return total_GII


def _strips(size: int) -> list[tuple[slice, slice]]:
    """Rows of a symmetric matrix, and the columns from their own diagonal on."""
    starts = range(0, size, STRIP)
    return [(slice(start, min(start + STRIP, size)), slice(start, size)) for start in starts]


def patch_moments(
    module: nn.Module, layers: Mapping[str, Plain], batches: Iterable[Tensor], generator: Generator
) -> dict[str, Moments]:
    """Mean and covariance of the patches that each layer sees, from one pass over the batches.

    All calls of a layer count alike. A layer that no image reaches is left out.
    """
    found = {path: Moments() for path in layers}

    def watch(path: str, layer: Plain) -> Callable[..., None]:
        def note(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
            positions = choose_positions(layer, output, generator)
            found[path].add(seen_rows(layer, layer_input(args, kwargs), positions))

        return note

    handles = [
        layer.register_forward_hook(watch(path, layer), with_kwargs=True) for path, layer in layers.items()
    ]
    try:
        with evaluating(module):
            for x in batches:
                module(x)
    finally:
        for handle in handles:
            handle.remove()
    return {path: moments for path, moments in found.items() if moments.rows}


def fisher(
    module: nn.Module, layers: Mapping[str, Plain], batches: Iterable[Tensor], generator: Generator
) -> dict[str, Tensor]:
    """Second moments of the outputs' gradients at each layer's raw response: (G, O, O) float64 per layer.

    The Gauss-Newton matrix by random signs: per image one draw of e in {-1, 1}, g_p = d(e' A z)/dy_p at
    every position p, F = mean over images of sum over p of g_p g_p' (summed, or layers of different
    resolution could not be compared; large maps are summed over positions drawn at random and scaled to all,
    which is right on average). z are the outputs as responses() prepares them: logits without
    their mean, A; other outputs relative to their own size. No labels: gradients of a fitted network's
    loss on its own training images say nothing (method.md, "what did not help").

    A layer that the outputs do not depend on differentiably gets zeros, and so do all layers of a network
    whose forward pass torch cannot differentiate; a layer that no image reaches is left out.
    """
    found: dict[str, Tensor] = {}
    images = 0
    starts: list[Tensor] = []

    def watch(path: str, layer: Plain) -> Callable[..., Tensor]:
        def note(_: nn.Module, __: tuple[Any, ...], output: Tensor) -> Tensor:
            found.setdefault(path, _no_moments(layer))
            if not output.requires_grad:  # behind a step without a gradient: the chain starts anew here
                output = output.detach().requires_grad_()
                starts.append(output)
            some = choose_positions(layer, output, generator)
            share = len(some) / positions_of(layer, output)
            output.register_hook(lambda grad: collect(path, response_rows(layer, grad, some), share))
            return output.clone()  # an in-place activation after the layer must not touch what is hooked

        return note

    def collect(path: str, grad_GMO: Tensor, share: float) -> None:
        # gradients of deep networks can be tiny: their squares would vanish in float32
        size = float(grad_GMO.abs().max())
        if size > 0:
            add_squares(found[path], widened(grad_GMO) / size, size**2 / share)

    handles = [layer.register_forward_hook(watch(path, layer)) for path, layer in layers.items()]
    sizes: list[float] = []
    try:
        with evaluating(module), torch.enable_grad(), _frozen(module):
            for x in batches:
                images += len(x)
                starts[:] = [x.detach().clone().requires_grad_()]
                _backward(module, starts, sizes, generator)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:  # an in-place step that autograd forbids, say: without gradients the network runs
        return {path: _no_moments(layer) for path, layer in layers.items()}
    finally:
        for handle in handles:
            handle.remove()
    return {path: mirror_(found[path]) / images for path in layers if path in found}


def _backward(module: nn.Module, starts: list[Tensor], sizes: list[float], generator: Generator) -> None:
    """One image batch, starts[0]; the layers' hooks collect what flows back, and add starts of their own."""
    total = signed_sum(module(starts[0].clone()), sizes, generator)
    if total is not None:
        torch.autograd.grad(total, starts, allow_unused=True)


def signed_sum(outputs: Any, sizes: list[float], generator: Generator) -> Tensor | None:
    """e'z summed over a batch, e random signs and z the outputs as responses() prepares them, by size.

    `sizes` is empty for the first batch, whose outputs fill it. None: nothing depends on the input.
    """
    found = responses(output_tensors(outputs))
    for z in found[len(sizes) :]:
        sizes.append(1.0 / max(float(z.detach().norm()) / max(len(z), 1) ** 0.5, 1e-30))  # noqa: PERF401
    felt = [(z, size) for z, size in zip(found, sizes, strict=False) if z.requires_grad]
    if not felt:
        return None
    signs = (torch.randint(0, 2, z.shape, generator=generator).to(z) * 2 - 1 for z, _ in felt)
    return torch.stack([(e * z).sum() * size for e, (z, size) in zip(signs, felt, strict=True)]).sum()


@contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    """No gradients of parameters: fewer products, and the only way back is to the images."""
    learning = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_()


def _no_moments(layer: Plain) -> Tensor:
    outputs = len(layer.weight) // _groups(layer)
    return torch.zeros(_groups(layer), outputs, outputs, dtype=torch.float64)


def _groups(layer: Plain) -> int:
    return layer.groups if isinstance(layer, nn.Conv2d) else 1
