"""ResNet (He et al. 2015), ResNeXt and wide ResNet for large images; a bottleneck strides in its 3x3."""

from collections.abc import Mapping
from typing import Final

from torch import Tensor, nn
from torch.nn import functional as F

# Depth: blocks of the four stages, and whether each is a bottleneck.
DEPTHS: Final[dict[int, tuple[tuple[int, ...], bool]]] = {
    18: ((2, 2, 2, 2), False),
    34: ((3, 4, 6, 3), False),
    50: ((3, 4, 6, 3), True),
    101: ((3, 4, 23, 3), True),
    152: ((3, 8, 36, 3), True),
}
_EXPANSION: Final = 4


class Block(nn.Module):
    """Two 3x3 convolutions, or a bottleneck of three, around a shortcut."""

    def __init__(self, inputs: int, planes: int, stride: int, inner: int | None, groups: int) -> None:
        super().__init__()
        if inner is None:
            sizes = [(inputs, planes, 3, stride, 1), (planes, planes, 3, 1, 1)]
        else:
            sizes = [
                (inputs, inner, 1, 1, 1),
                (inner, inner, 3, stride, groups),
                (inner, planes * _EXPANSION, 1, 1, 1),
            ]
        self.count = len(sizes)
        for number, (taken, given, kernel, step, parts) in enumerate(sizes, 1):
            conv = nn.Conv2d(taken, given, kernel, step, kernel // 2, groups=parts, bias=False)
            self.add_module(f"conv{number}", conv)
            self.add_module(f"bn{number}", nn.BatchNorm2d(given))
        outputs = sizes[-1][1]
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            conv = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(conv, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        for number in range(1, self.count + 1):
            x = self.get_submodule(f"bn{number}")(self.get_submodule(f"conv{number}")(x))
            x = F.relu(x) if number < self.count else x
        return F.relu(x + shortcut)


class ResNet(nn.Module):
    def __init__(self, depth: int, classes: int, channels: int, groups: int, width: int) -> None:
        super().__init__()
        blocks, bottleneck = DEPTHS[depth]
        self.conv1 = nn.Conv2d(channels, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        inputs = 64
        for stage, count in enumerate(blocks):
            planes = 64 << stage
            inner = planes * width // 64 * groups if bottleneck else None
            outputs = planes * _EXPANSION if bottleneck else planes
            made = [
                Block(outputs if i else inputs, planes, 2 if stage and not i else 1, inner, groups)
                for i in range(count)
            ]
            self.add_module(f"layer{stage + 1}", nn.Sequential(*made))
            inputs = outputs
        self.fc = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        for stage in range(1, 5):
            x = self.get_submodule(f"layer{stage}")(x)
        scores: Tensor = self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))
        return scores


def build(
    depth: int, _: Mapping[str, Tensor], classes: int, channels: int, groups: int = 1, width: int = 64
) -> nn.Module:
    return ResNet(depth, classes, channels, groups, width)
