"""ResNet-50 (He et al. 2015, stride in the 3x3 as is usual): 25.6 M parameters, 4.09 G MACs at 224 px.

Only its size matters here. The weights are random with the spectra of trained layers, so that ranks,
iteration counts and early stops are those of a real network.
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

WIDTH = 64
STAGES = ((1, 3, 1), (2, 4, 2), (4, 6, 2), (8, 3, 2))  # times the width, blocks, stride
EXPANSION = 4
DECAY = 0.7  # singular values fall as i^-0.7: between the early and the late layers of trained ResNets


class Bottleneck(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = width * EXPANSION
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            conv = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(conv, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return F.relu(out + (x if self.downsample is None else self.downsample(x)))


class ResNet50(nn.Module):
    def __init__(self, base: int = WIDTH, classes: int = 1000) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, base, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(base)
        stages: list[nn.Module] = []
        inputs = base
        for times, blocks, stride in STAGES:
            width = times * base
            first = Bottleneck(inputs, width, stride)
            inputs = width * EXPANSION
            stages.append(nn.Sequential(first, *(Bottleneck(inputs, width, 1) for _ in range(blocks - 1))))
        self.layers = nn.Sequential(*stages)
        self.fc = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        x = F.adaptive_avg_pool2d(self.layers(x), 1).flatten(1)
        return cast(Tensor, self.fc(x))


def resnet50(base: int = WIDTH, seed: int = 0) -> ResNet50:
    """Random weights with decaying spectra, in eval mode; the batch norms keep their neutral statistics.

    `base`: channels of the first layer; 64 is ResNet-50, less is for trying things out.
    """
    generator = Generator().manual_seed(seed)
    network = ResNet50(base).eval()
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            _fill(module.weight, generator)
    for module in network.modules():
        if isinstance(module, Bottleneck):
            nn.init.constant_(module.bn3.weight, 0.3)  # branches small beside their shortcut, as trained ones
    return network


@torch.no_grad()
def _fill(weight: Tensor, generator: Generator) -> None:
    """U diag(i^-0.7) V' with random U and V, scaled to keep a ReLU network's variance."""
    out, inputs = weight.shape[0], weight[0].numel()
    rank = min(out, inputs)
    left = torch.randn(out, rank, generator=generator)
    right = torch.randn(rank, inputs, generator=generator)
    values = torch.arange(1, rank + 1).float().pow(-DECAY)
    matrix = (left * values) @ right
    matrix *= (2 * out / matrix.square().sum()).sqrt()
    weight.copy_(matrix.reshape(weight.shape))
