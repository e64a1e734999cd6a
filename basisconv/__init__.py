"""BasisConv: trained convolutional networks made small, by the network's own measured responses.

Needs torch and numpy only. See docs/method.md for the formulas and where each of them is. Names are imported
when they are first used: what needs no torch (basisconv.choice, ranks) does not wait for it.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

# ONNX Runtime's wheels send what they run to their maker unless this is set before they are imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

if TYPE_CHECKING:
    from basisconv.config import DecomposeConfig, Decomposition, LayerOutcome, Progress
    from basisconv.cost import Costs, Layer, LayerCost, check_weights, count, describe
    from basisconv.decompose import decompose_
    from basisconv.errors import InfeasibleTarget, InvalidRequest, MalformedWeights, MethodError
    from basisconv.nn import BasisConv2d, BasisLinear, Factorized, Form, SeparableConv2d
    from basisconv.reasons import Reason
    from basisconv.surgery import replace_

__all__ = [
    "BasisConv2d",
    "BasisLinear",
    "Costs",
    "DecomposeConfig",
    "Decomposition",
    "Factorized",
    "Form",
    "InfeasibleTarget",
    "InvalidRequest",
    "Layer",
    "LayerCost",
    "LayerOutcome",
    "MalformedWeights",
    "MethodError",
    "Progress",
    "Reason",
    "SeparableConv2d",
    "check_weights",
    "count",
    "decompose_",
    "describe",
    "replace_",
]

_HOMES = {
    "BasisConv2d": "basisconv.nn",
    "BasisLinear": "basisconv.nn",
    "Costs": "basisconv.cost",
    "DecomposeConfig": "basisconv.config",
    "Decomposition": "basisconv.config",
    "Factorized": "basisconv.nn",
    "Form": "basisconv.nn",
    "InfeasibleTarget": "basisconv.errors",
    "InvalidRequest": "basisconv.errors",
    "Layer": "basisconv.cost",
    "LayerCost": "basisconv.cost",
    "LayerOutcome": "basisconv.config",
    "MalformedWeights": "basisconv.errors",
    "MethodError": "basisconv.errors",
    "Progress": "basisconv.config",
    "Reason": "basisconv.reasons",
    "SeparableConv2d": "basisconv.nn",
    "check_weights": "basisconv.cost",
    "count": "basisconv.cost",
    "decompose_": "basisconv.decompose",
    "describe": "basisconv.cost",
    "replace_": "basisconv.surgery",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
