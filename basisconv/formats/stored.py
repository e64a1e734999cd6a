"""Stored weights, and a module that they go into: compared name by name before memory is taken for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn.modules import module as hooks

from basisconv.errors import MethodError

State = dict[str, Tensor]
Make = Callable[[], nn.Module]
MAX_MODULES: Final = 10_000  # the largest network that is read here, EfficientNet-B8, has 2,500
_COUNTER: Final = "num_batches_tracked"  # of batch norms; nothing at inference, and many files lack it
_SHOWN: Final = 3
_FLOATS: Final = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


class _TooLarge(Exception):  # noqa: N818 - says what happened
    """What a module would become is over its bounds. Says it as the end of a sentence."""


def read_safetensors(path: Path) -> State:
    """All tensors of a file. Raises malformed_model."""
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    except (SafetensorError, ValueError, RuntimeError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise MethodError(
            "malformed_model",
            f"{path.name} cannot be read as safetensors: {reason}.",
            hint="Write it again with safetensors.torch.save_file, and compare the size after copying.",
        ) from error


def fill(make: Make, state: Mapping[str, Tensor], what: str) -> nn.Module:
    """The module that `make` builds, in eval mode with these weights, which must be exactly its own.

    It is built without memory first: what asks for more than the weights hold is never allocated. Raises
    malformed_model naming what is missing, unknown or of another shape.
    """
    held = sum(value.numel() for value in state.values())
    try:
        with _bounded(held), torch.device("meta"):
            wanted = {name: tuple(value.shape) for name, value in make().state_dict().items()}
    except _TooLarge as error:
        raise MethodError(
            "malformed_model",
            f"{what} {error}; the file holds {held:,} numbers.",
            hint="The description and the weights belong to different networks.",
        ) from error
    compare(wanted, {name: tuple(value.shape) for name, value in state.items()}, what)
    _refuse_numbers(state)
    module = make()
    own = module.state_dict()
    for name, value in own.items():
        if name in state:
            value.copy_(state[name])
    return module.eval()


def compare(wanted: Mapping[str, Sequence[int]], found: Mapping[str, Sequence[int]], what: str) -> None:
    """Raises malformed_model with the first few names of each kind of difference, and how many there are."""
    missing = [name for name in wanted if name not in found and not name.endswith(_COUNTER)]
    unknown = [name for name in found if name not in wanted and not name.endswith(_COUNTER)]
    other = [
        f"{name} is {list(found[name])} instead of {list(wanted[name])}"
        for name in wanted
        if name in found and tuple(found[name]) != tuple(wanted[name])
    ]
    kinds = (("missing", missing), ("not known", unknown), ("of another shape", other))
    said = [f"{len(names)} are {kind} ({_some(names)})" for kind, names in kinds if names]
    if said:
        raise MethodError(
            "malformed_model",
            f"The weights do not fit {what}, which has {len(wanted):,} tensors: {'; '.join(said)}.",
            hint="Send the weights with the description that they were trained under.",
        )


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(name[:120] for name in names[:_SHOWN])
    return shown + (" …" if len(names) > _SHOWN else "")


def _refuse_numbers(state: Mapping[str, Tensor]) -> None:
    for name, value in state.items():
        if value.dtype not in _FLOATS and not name.endswith(_COUNTER):
            kind = str(value.dtype).removeprefix("torch.")
            raise MethodError(
                "malformed_model",
                f"The weight {name[:200]} is {kind}; float32, float16, bfloat16 and float64 are read.",
                hint="Save the weights before they are quantised.",
            )


@contextmanager
def _bounded(numbers: int) -> Iterator[None]:
    """Within, a module that grows beyond so many numbers, or far too many parts, is given up."""
    modules = stored = 0

    def on_module(_: nn.Module, __: str, ___: Any) -> None:
        nonlocal modules
        modules += 1
        if modules > MAX_MODULES:
            raise _TooLarge(f"asks for more than {MAX_MODULES:,} layers")

    def on_tensor(_: nn.Module, __: str, value: Tensor | None) -> None:
        nonlocal stored
        stored += 0 if value is None else math.prod(value.shape)
        if stored > 2 * numbers + 1_000_000:  # buffers that no file stores come on top
            raise _TooLarge(f"asks for more than {stored:,} numbers")

    handles = [
        hooks.register_module_module_registration_hook(on_module),
        hooks.register_module_parameter_registration_hook(on_tensor),
        hooks.register_module_buffer_registration_hook(on_tensor),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
