"""MobileNetV2 (Sandler et al. 2018) at its full width."""

from collections.abc import Mapping
from typing import Final

from torch import Tensor, nn
from torch.nn import functional as F

# Expansion, width, blocks and the first block's stride: table 2 of the paper.
_STAGES: Final = (
    *((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2)),
    *((6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)),
)
_LAST: Final = 1280


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU6())


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = inputs * expansion
        self.adds = stride == 1 and inputs == outputs
        self.conv = nn.Sequential(
            *([_conv(inputs, inner, 1)] if expansion > 1 else []),
            _conv(inner, inner, 3, stride, groups=inner),
            nn.Conv2d(inner, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.conv(x)
        return x + made if self.adds else made


class MobileNetV2(nn.Module):
    def __init__(self, classes: int, channels: int) -> None:
        super().__init__()
        width = 32
        blocks: list[nn.Module] = [_conv(channels, width, 3, 2)]
        for expansion, outputs, count, stride in _STAGES:
            for i in range(count):
                blocks.append(Block(width, outputs, 1 if i else stride, expansion))
                width = outputs
        self.features = nn.Sequential(*blocks, _conv(width, _LAST, 1))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(_LAST, classes))

    def forward(self, x: Tensor) -> Tensor:
        pooled = F.adaptive_avg_pool2d(self.features(x), 1).flatten(1)
        scores: Tensor = self.classifier(pooled)
        return scores


def build(_: Mapping[str, Tensor], classes: int, channels: int) -> nn.Module:
    return MobileNetV2(classes, channels)
