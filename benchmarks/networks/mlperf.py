"""MLPerf Tiny's ResNet-8 for CIFAR-10 as found: an ONNX file of the shared data."""

from torch import nn

from tests.support import networks as shared

MLPERF = "cifar10_mlperf_tiny_resnet8"
NORMALISATION = shared.Normalisation(1.0, (0.0,) * 3, (1.0,) * 3)  # it takes raw pixels


def found_mlperf() -> nn.Module:
    """By the library's own reader, in eval mode; its answers are probabilities."""
    from basisconv.formats import onnx_reader  # the peers' environment has no reader

    return onnx_reader.load(shared.data_root() / "onnx_models" / f"{MLPERF}.onnx").module.eval()
