"""One forward pass, watched: which layers run, on what shapes, and who else reads their weights."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

_WEIGHTS = ("weight", "bias")


@dataclass(frozen=True)
class Call:
    """One run of a layer: the shapes of its input and output, as they were."""

    input: tuple[int, ...]
    output: tuple[int, ...]


@dataclass
class Watched:
    """Layers in the order of their first call, and what would be lost if one were replaced."""

    calls: dict[nn.Module, list[Call]] = field(default_factory=dict)
    read: set[nn.Module] = field(default_factory=set)  # weights read from outside the layer's own forward
    hooked: set[nn.Module] = field(default_factory=set)  # others' forward hooks, which may change values


def watch(module: nn.Module, kinds: tuple[type[nn.Module], ...], example: Tensor) -> Watched:
    """Run `module` on `example` in eval mode and note every call of a submodule of these kinds."""
    seen = Watched()
    layers = [child for child in module.modules() if isinstance(child, kinds)]
    seen.hooked = {child for child in layers if has_hooks(child)}
    running: list[nn.Module] = []

    def enter(child: nn.Module, _: Any) -> None:
        running.append(child)

    def leave(child: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Tensor) -> None:
        running.pop()
        x = layer_input(args, kwargs)
        seen.calls.setdefault(child, []).append(Call(tuple(x.shape), tuple(output.shape)))

    def read(child: nn.Module) -> None:
        if not running or running[-1] is not child:
            seen.read.add(child)

    with ExitStack() as stack:
        for child in layers:
            stack.callback(child.register_forward_pre_hook(enter, prepend=True).remove)
            stack.callback(child.register_forward_hook(leave, with_kwargs=True).remove)
            stack.enter_context(_overheard(child, read))
        with evaluating(module):
            module(example)
    return seen


def layer_input(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    """What a convolution or linear layer was called on, by position or as `input=`."""
    x: Tensor = args[0] if args else kwargs["input"]
    return x


def has_hooks(layer: nn.Module) -> bool:
    return bool(layer._forward_hooks or layer._forward_pre_hooks)  # noqa: SLF001 - torch has no public way


@contextmanager
def _overheard(layer: nn.Module, read: Callable[[nn.Module], None]) -> Iterator[None]:
    """Tell `read` whenever somebody takes the layer's weight or bias."""
    own = type(layer)
    become: Any = layer
    become.__class__ = _listening(own, read)
    try:
        yield
    finally:
        become.__class__ = own


def _listening(own: type[nn.Module], read: Callable[[nn.Module], None]) -> type[nn.Module]:
    """A subclass that differs in nothing but reporting."""

    def __getattribute__(self: nn.Module, name: str) -> Any:  # noqa: N807 - it becomes the class's
        if name in _WEIGHTS:
            read(self)
        return own.__getattribute__(self, name)

    return type(own.__name__, (own,), {"__getattribute__": __getattribute__})


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Eval mode without gradients; every submodule's own mode is put back."""
    modes = {child: child.training for child in module.modules()}
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for child, training in modes.items():
            child.training = training
