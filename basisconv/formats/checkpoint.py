"""A file of weights -> names and tensors: safetensors, or torch.save's with `weights_only`.

torch's reader of weights builds tensors and plain containers only; it is used in a sandbox alone.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from basisconv.errors import MethodError
from basisconv.formats.names import quoted
from basisconv.formats.stored import State, read_safetensors

# What training scripts put around the weights, and before their names.
WRAPPERS: Final = ("state_dict", "model_state_dict", "model", "net", "weights", "params", "model_ema", "ema")
PREFIXES: Final = ("module.", "_orig_mod.", "model.", "net.", "network.", "backbone.")
_LAYERS: Final = 4  # wrappers in wrappers
_ALONE: Final = "Save the weights alone: torch.save(model.state_dict(), 'weights.pt'), or as safetensors."


def read(path: Path) -> State:
    """Raises malformed_model, unsafe_serialization."""
    with path.open("rb") as file:
        zipped = file.read(2) == b"PK"
    state = _unwrapped(_read_torch(path)) if zipped else read_safetensors(path)
    for name, value in state.items():
        if value.layout != torch.strided or value.is_quantized:
            raise _malformed(f"The weight {name[:200]} is sparse or quantised.")
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise _malformed(f"The weight {name[:200]} repeats fewer stored numbers than it has.")
    return _without_prefix(state)


def _malformed(detail: str) -> MethodError:
    return MethodError("malformed_model", detail, hint=_ALONE)


def _read_torch(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        asked = re.search(
            r"GLOBAL ([\w.]+)", str(error)
        )  # the rest of torch's text advises to trust the file
        what = f" (it asks for {quoted(asked[1])})" if asked else ""
        raise MethodError(
            "unsafe_serialization",
            f"The file holds more than weights, in a pickle, which can run any code{what}.",
            hint=_ALONE,
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # its readers raise nearly anything on damaged files
        reason = quoted(" ".join(str(error).split()) or type(error).__name__, 200)
        raise _malformed(f"The file cannot be read as weights: {reason}.") from error


def _unwrapped(found: Any) -> State:
    for _ in range(_LAYERS):
        if not isinstance(found, Mapping):
            break
        tensors = {str(name): value for name, value in found.items() if isinstance(value, Tensor)}
        inner = next((found[name] for name in WRAPPERS if isinstance(found.get(name), Mapping)), None)
        if inner is None:
            if len(tensors) < len(found) or not tensors:
                break
            return tensors
        found = inner
    kinds = sorted({type(value).__name__ for value in found.values()}) if isinstance(found, Mapping) else []
    held = f"a table of {', '.join(kinds[:5])}" if kinds else f"a {type(found).__name__}"
    raise _malformed(f"The file holds {held}, not a table of names and tensors.")


def _without_prefix(state: State) -> State:
    """Names without what every one of them begins with, where that is a wrapper's own name."""
    while prefix := next((one for one in PREFIXES if state and all(n.startswith(one) for n in state)), None):
        state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state
