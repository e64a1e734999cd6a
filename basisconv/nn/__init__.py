"""Two layers in the place of one."""

from basisconv.nn.basis import BasisConv2d, BasisLinear
from basisconv.nn.factorized import FORMS, Factorized, Form
from basisconv.nn.separable import SeparableConv2d

__all__ = ["FORMS", "BasisConv2d", "BasisLinear", "Factorized", "Form", "SeparableConv2d"]
