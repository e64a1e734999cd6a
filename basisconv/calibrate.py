"""What calibration images tell about each layer: streamed, so memory does not grow with their number.

Shapes: G groups, O out channels, I in channels times kernel area (both per group), M rows.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Generator, Tensor, nn

from basisconv.cost import evaluating
from basisconv.outputs import output_tensors, responses
from basisconv.patches import choose_positions, response_rows, seen_rows

Images = Callable[[], Iterator[Tensor]]
Plain = nn.Conv2d | nn.Linear


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
        t_GMO = x_GMI[..., :0] if t_GMO is None else t_GMO
        if not self.rows:
            self._shift_x, self._shift_t = x_GMI.mean(1, keepdim=True), t_GMO.mean(1, keepdim=True)
        x, t = x_GMI - self._shift_x, t_GMO - self._shift_t
        self.rows += x.shape[1]
        parts = {"x": x.sum(1), "t": t.sum(1), "xx": x.mT @ x, "tx": t.mT @ x, "tt": t.square().sum(1)}
        for name, part in parts.items():
            if name in self._sums:
                self._sums[name].add_(part.cpu())
            else:
                self._sums[name] = part.double().cpu()

    def covariances(self) -> Covariances:
        mean = {name: total / self.rows for name, total in self._sums.items()}
        x, t = mean["x"], mean["t"]
        return Covariances(
            mean_x=self._shift_x.double().cpu().squeeze(1) + x,
            mean_t=self._shift_t.double().cpu().squeeze(1) + t,
            gram=mean["xx"] - x[:, :, None] * x[:, None],
            cross=mean["tx"] - t[:, :, None] * x[:, None],
            variance_t=(mean["tt"] - t.square()).clamp_min(0),
        )


def patch_moments(
    module: nn.Module, layers: Mapping[str, Plain], batches: Iterable[Tensor], generator: Generator
) -> dict[str, Moments]:
    """Mean and covariance of the patches that each layer sees, from one pass over the batches."""
    found = {path: Moments() for path in layers}

    def watch(path: str, layer: Plain) -> Callable[..., None]:
        def note(_: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
            positions = choose_positions(layer, output, generator)
            found[path].add(seen_rows(layer, inputs[0], positions))

        return note

    handles = [layer.register_forward_hook(watch(path, layer)) for path, layer in layers.items()]
    try:
        with evaluating(module):
            for x in batches:
                module(x)
    finally:
        for handle in handles:
            handle.remove()
    return found


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

    A layer that the outputs do not depend on differentiably gets zeros.
    """
    found = {
        path: torch.zeros(_groups(layer), len(layer.weight) // _groups(layer), 1).double()
        for path, layer in layers.items()
    }
    found = {path: zeros @ zeros.mT for path, zeros in found.items()}
    images = 0

    def watch(path: str, layer: Plain) -> Callable[..., Tensor]:
        def note(_: nn.Module, __: tuple[Any, ...], output: Tensor) -> Tensor:
            if output.requires_grad:
                some = choose_positions(layer, output, generator)
                share = len(some) * len(layer.weight) / output[0].numel()
                output.register_hook(lambda grad: collect(path, response_rows(layer, grad, some), share))
            return output.clone()  # an in-place activation after the layer must not touch what is hooked

        return note

    def collect(path: str, grad_GMO: Tensor, share: float) -> None:
        # gradients of deep networks can be tiny: the product is formed in float64
        grad = grad_GMO.double()
        found[path] += (grad.mT @ grad).cpu() / share

    handles = [layer.register_forward_hook(watch(path, layer)) for path, layer in layers.items()]
    sizes: list[float] = []
    try:
        with evaluating(module), torch.enable_grad():
            for x in batches:
                images += len(x)
                _backward(module, x, sizes, generator)
    finally:
        for handle in handles:
            handle.remove()
    return {path: total / max(images, 1) for path, total in found.items()}


def _backward(module: nn.Module, x: Tensor, sizes: list[float], generator: Generator) -> None:
    x = x.detach().clone().requires_grad_()
    total = signed_sum(module(x), sizes, generator)
    if total is not None:
        torch.autograd.grad(total, [x], allow_unused=True)


def signed_sum(outputs: Any, sizes: list[float], generator: Generator) -> Tensor | None:
    """e'z summed over a batch, e random signs and z the outputs as responses() prepares them, by size.

    `sizes` is empty for the first batch, whose outputs fill it. None: nothing depends on the input.
    """
    found = [z for z in responses(output_tensors(outputs)) if z.requires_grad]
    if not sizes:
        sizes += [1.0 / max(float(z.detach().norm()) / len(z) ** 0.5, 1e-12) for z in found]
    if not found:
        return None
    signs = (torch.randint(0, 2, z.shape, generator=generator).to(z) * 2 - 1 for z in found)
    return torch.stack([(e * z).sum() * size for e, z, size in zip(signs, found, sizes, strict=True)]).sum()


def _groups(layer: Plain) -> int:
    return layer.groups if isinstance(layer, nn.Conv2d) else 1
