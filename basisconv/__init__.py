"""BasisConv: trained convolutional networks made small, by the network's own measured responses.

Needs torch and numpy only. See docs/method.md for the formulas and where each of them is.
"""

import os

# ONNX Runtime's wheels send what they run to their maker unless this is set before they are imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

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
