"""The usual shapes with random weights: time does not depend on what a network has learned."""

import io
import warnings

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_VGG16 = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0)  # 0: halve the image
_RESNET18 = ((64, 1), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1))


class Block(nn.Module):
    """He et al. 2015, the basic block with a 1x1 shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        changes = stride != 1 or inputs != outputs
        conv = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
        self.down = nn.Sequential(conv, nn.BatchNorm2d(outputs)) if changes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.down(x))


def vgg16(classes: int = 100) -> nn.Module:
    """With batch norms, for 32 x 32 images."""
    layers: list[nn.Module] = []
    inputs = 3
    for outputs in _VGG16:
        if outputs:
            layers += [nn.Conv2d(inputs, outputs, 3, 1, 1), nn.BatchNorm2d(outputs), nn.ReLU()]
            inputs = outputs
        else:
            layers.append(nn.MaxPool2d(2))
    return _lived(nn.Sequential(*layers, nn.Flatten(), nn.Linear(512, classes)))


def resnet18(classes: int = 1000) -> nn.Module:
    """For 224 x 224 images."""
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    layers.append(nn.MaxPool2d(3, 2, 1))
    inputs = 64
    for outputs, stride in _RESNET18:
        layers.append(Block(inputs, outputs, stride))
        inputs = outputs
    return _lived(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, classes)))


def _lived(network: nn.Module) -> nn.Module:
    """Batch norms that differ, as trained ones do."""
    draw = torch.Generator().manual_seed(0)
    for child in network.modules():
        if isinstance(child, nn.BatchNorm2d):
            nn.init.uniform_(child.weight, 0.5, 1.5, generator=draw)
            nn.init.normal_(child.bias, 0, 0.2, generator=draw)
            nn.init.normal_(child.running_mean, 0, 0.2, generator=draw)
            nn.init.uniform_(child.running_var, 0.5, 1.5, generator=draw)
    return network.eval()


def onnx_of(network: nn.Module, shape: tuple[int, int, int]) -> bytes:
    """The network as an ONNX file with an open batch."""
    buffer = io.BytesIO()
    axes = {"images": {0: "batch"}, "scores": {0: "batch"}}
    names = {"input_names": ["images"], "output_names": ["scores"]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (torch.zeros(2, *shape),),
            buffer,
            dynamo=False,
            opset_version=17,
            dynamic_axes=axes,
            **names,
        )
    return buffer.getvalue()
