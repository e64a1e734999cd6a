"""What a network asks for when it runs, counted operator by operator, each before it is computed.

A file of a kilobyte can ask for hours of work or for a petabyte. `foresee` runs the graph on shapes alone,
where that is possible; `Counting` looks at every operator of a real run before it starts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, fx, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only
from torch.utils.flop_counter import flop_registry

from basisconv.errors import MethodError
from basisconv.formats.names import quoted

aten: Final = torch.ops.aten
SMALL: Final = 64  # numbers; axes, pads, sizes and shapes are shorter
# Looking at an operator takes Python some 20 microseconds, in which a core handles about this many numbers.
OPERATOR_VALUES: Final = 50_000
# Its own formula is that of the operator for GPUs.
_ATTENTION: Final = {
    aten._scaled_dot_product_flash_attention_for_cpu: aten._scaled_dot_product_flash_attention,  # noqa: SLF001
    aten._scaled_dot_product_fused_attention_overrideable: aten._scaled_dot_product_flash_attention,  # noqa: SLF001
}
_POOLS: Final = frozenset(
    {
        *(aten.avg_pool1d, aten.avg_pool2d, aten.avg_pool3d),
        *(aten.max_pool2d_with_indices, aten.max_pool3d_with_indices),
    }
)


@dataclass(frozen=True)
class Budget:
    """The most that one call of the network may take; no bounds unless told."""

    macs: float = math.inf
    values: float = math.inf  # numbers read or written by its operators, all together
    value: float = math.inf  # numbers of one value

    def times(self, calls: float) -> Budget:
        """For so many images at once."""
        return Budget(self.macs * calls, self.values * calls, self.value * calls)


class TooMuch(Exception):  # noqa: N818 - says what happened
    """The operator that was to be computed is over the budget. Says it as the end of a sentence."""


def refusal(name: str, kind: str, error: TooMuch) -> MethodError:
    """What a reader is told: the node and the numbers."""
    return MethodError(
        "resource_limit",
        f"The node {quoted(name)}{f' ({kind})' if kind else ''} {error}.",
        layer=name,
        hint="Export the network for smaller images, or with an open batch; or have the limit raised.",
    )


class Counting(TorchDispatchMode):
    """Raises TooMuch before an operator is computed that the budget does not cover."""

    def __init__(self, budget: Budget) -> None:
        super().__init__()
        self.budget = budget
        self.macs = self.values = 0.0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if func.is_view:
            return func(*args, **given)
        if _holds_nothing(args, given):
            result = func(*args, **given)
            self._count(func, args, given, result)
            return result
        foreseen = _shapes_only(func, args, given)
        if foreseen is not None:
            self._count(func, args, given, foreseen)
        return func(*args, **given)

    def _count(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        made, read = _sizes(result), _sizes((args, kwargs))
        largest = max(made, default=0)
        if largest > self.budget.value:
            raise TooMuch(f"makes {largest:,} numbers; the limit is {self.budget.value:,.0f} for one value")
        self.macs += _macs(func, args, kwargs, result)
        if self.macs > self.budget.macs:
            raise TooMuch(
                f"brings the network to {self.macs:,.0f} multiplications; "
                f"the limit is {self.budget.macs:,.0f}"
            )
        self.values += max([*made, *read], default=0) * _window(func, args) + OPERATOR_VALUES
        if self.values > self.budget.values:
            raise TooMuch(
                f"brings the network to {self.values:,.0f} numbers computed; "
                f"the limit is {self.budget.values:,.0f}"
            )


def _sizes(values: Any) -> list[int]:
    return [value.numel() for value in tree_flatten(values)[0] if isinstance(value, Tensor)]


def _macs(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> float:
    packet = _ATTENTION.get(func.overloadpacket, func.overloadpacket)
    formula = flop_registry.get(packet)
    return formula(*args, **kwargs, out_val=result) / 2 if formula else 0.0  # torch counts each twice


def _window(func: Any, args: tuple[Any, ...]) -> int:
    """How many numbers a pool reads for each that it makes."""
    return math.prod(args[1]) if func.overloadpacket in _POOLS and len(args) > 1 else 1


def _holds_nothing(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    tensors = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, Tensor)]
    return bool(tensors) and all(tensor.is_meta for tensor in tensors)


def _shapes_only(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The operator's result without its numbers; None where only the numbers decide its shape."""
    args, moved = tree_map_only(Tensor, without_numbers, (args, kwargs))
    if any(argument.name == "device" for argument in func._schema.arguments):  # noqa: SLF001
        moved = moved | {"device": torch.device("meta")}
    try:
        return func(*args, **moved)
    except Exception:
        return None


def without_numbers(value: Tensor) -> Tensor:
    """A tensor of the same shape and type that holds nothing."""
    return torch.empty_strided(value.size(), value.stride(), dtype=value.dtype, device="meta")


def foresee(
    module: fx.GraphModule, shape: tuple[int, ...], names: Mapping[fx.Node, str], budget: Budget
) -> bool:
    """Run the graph on shapes alone. Raises resource_limit naming the node that is over the budget.

    Gives whether all of it could be foreseen: a shape may depend on an image's numbers.
    """
    with torch.no_grad():
        try:
            _Foreseeing(module, names, budget).run(torch.empty(shape, device="meta"))
        except MethodError:
            raise
        except Exception:
            return False
    return True


class _Foreseeing(fx.Interpreter):
    def __init__(self, module: fx.GraphModule, names: Mapping[fx.Node, str], budget: Budget) -> None:
        super().__init__(module)
        self._counting = Counting(budget)
        self._names = names

    def run_node(self, n: fx.Node) -> Any:
        try:
            with self._counting:
                return super().run_node(n)
        except TooMuch as error:
            raise refusal(self._names.get(n, n.name), str(n.meta.get("onnx_op_type", "")), error) from error

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:  # what is short may be sizes or axes, whose numbers decide
            return self._call(target, args, kwargs, SMALL)
        except TooMuch:
            raise
        except Exception:  # or an operator that takes no mixture
            return self._call(target, args, kwargs, 0)

    def _call(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any], kept: int) -> Any:
        def lighter(value: Tensor) -> Tensor:
            return value if value.is_meta or value.numel() <= kept else without_numbers(value)

        args, kwargs = tree_map_only(Tensor, lighter, (args, kwargs))
        return super().call_function(target, args, kwargs)

    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        layer: nn.Module = self.fetch_attr(str(target))
        state = {**dict(layer.named_parameters()), **dict(layer.named_buffers())}
        light = {name: without_numbers(value) for name, value in state.items()}
        return torch.func.functional_call(layer, light, args, kwargs)
