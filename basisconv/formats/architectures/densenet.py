"""DenseNet (Huang et al. 2016) with bottlenecks and halving transitions."""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Depth: layers of the four blocks, growth, width of the first convolution.
BLOCKS: Final[dict[int, tuple[tuple[int, ...], int, int]]] = {
    121: ((6, 12, 24, 16), 32, 64),
    161: ((6, 12, 36, 24), 48, 96),
    169: ((6, 12, 32, 32), 32, 64),
    201: ((6, 12, 48, 32), 32, 64),
}
_BOTTLENECK: Final = 4


class Layer(nn.Module):
    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        inner = _BOTTLENECK * growth
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, inner, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.conv1(F.relu(self.norm1(x)))
        return torch.cat([x, self.conv2(F.relu(self.norm2(inner)))], 1)


class DenseNet(nn.Module):
    def __init__(self, depth: int, classes: int, channels: int) -> None:
        super().__init__()
        blocks, growth, width = BLOCKS[depth]
        parts: OrderedDict[str, nn.Module] = OrderedDict(
            conv0=nn.Conv2d(channels, width, 7, 2, 3, bias=False),
            norm0=nn.BatchNorm2d(width),
            relu0=nn.ReLU(),
            pool0=nn.MaxPool2d(3, 2, 1),
        )
        for number, count in enumerate(blocks, 1):
            layers = {f"denselayer{i + 1}": Layer(width + i * growth, growth) for i in range(count)}
            parts[f"denseblock{number}"] = nn.Sequential(OrderedDict(layers))
            width += count * growth
            if number < len(blocks):
                parts[f"transition{number}"] = _transition(width)
                width //= 2
        parts["norm5"] = nn.BatchNorm2d(width)
        self.features = nn.Sequential(parts)
        self.classifier = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        pooled = F.adaptive_avg_pool2d(F.relu(self.features(x)), 1).flatten(1)
        scores: Tensor = self.classifier(pooled)
        return scores


def _transition(width: int) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict[str, nn.Module](
            norm=nn.BatchNorm2d(width),
            relu=nn.ReLU(),
            conv=nn.Conv2d(width, width // 2, 1, bias=False),
            pool=nn.AvgPool2d(2, 2),
        )
    )


def build(depth: int, _: Mapping[str, Tensor], classes: int, channels: int) -> nn.Module:
    return DenseNet(depth, classes, channels)
