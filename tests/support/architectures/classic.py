"""VGG, ResNet, ResNeXt and DenseNet: the published topology at tiny widths, no weights."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def conv_norm(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


def vgg(plan: Sequence[int | str] = (12, 12, "M", 24, 24, "M", 32, 32, "M"), classes: int = 10) -> nn.Module:
    """Simonyan and Zisserman 2014, biases, no batch norm, three linear layers at the end."""
    layers: list[nn.Module] = []
    channels = 3
    for step in plan:
        if isinstance(step, str):
            layers.append(nn.MaxPool2d(2))
        else:
            layers += [nn.Conv2d(channels, step, 3, padding=1), nn.ReLU(inplace=True)]
            channels = step
    head = [nn.Flatten(), nn.LazyLinear(48), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(48, 48)]
    return nn.Sequential(*layers, *head, nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(48, classes))


class BasicBlock(nn.Module):
    """He et al. 2015: two 3x3, the sum in place."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int, groups: int = 1) -> None:
        super().__init__()
        assert groups == 1
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = shortcut(inputs, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += identity
        return self.relu(out)


class Bottleneck(nn.Module):
    """He et al. 2015: 1x1, 3x3, 1x1; with groups ResNeXt's (Xie et al. 2016)."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int, groups: int = 1) -> None:
        super().__init__()
        inner = width * 2 if groups > 1 else width
        self.conv1 = nn.Conv2d(inputs, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, 1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, width * 4, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width * 4)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut(inputs, width * 4, stride)

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        out += identity
        return self.relu(out)


def shortcut(inputs: int, outputs: int, stride: int) -> nn.Module | None:
    return None if stride == 1 and inputs == outputs else conv_norm(inputs, outputs, 1, stride)


class ResNet(nn.Module):
    """A 7x7 stem with max pooling, then stages whose first block halves the image."""

    def __init__(
        self, block: type[BasicBlock | Bottleneck], widths: Sequence[int], groups: int = 1, classes: int = 10
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 12, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(12)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        inputs, stages = 12, []
        for number, width in enumerate(widths):
            first = block(inputs, width, 1 if number == 0 else 2, groups)
            inputs = width * block.expansion
            stages.append(nn.Sequential(first, block(inputs, width, 1, groups)))
        self.stages = nn.ModuleList(stages)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for stage in self.stages:
            x = stage(x)
        return self.fc(torch.flatten(self.avgpool(x), 1))


class DenseLayer(nn.Module):
    """Huang et al. 2016: norm and ReLU before each convolution; the new features are appended."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.norm1, self.relu = nn.BatchNorm2d(inputs), nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(inputs, 4 * growth, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(4 * growth)
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, features: list[Tensor]) -> Tensor:
        x = self.conv1(self.relu(self.norm1(torch.cat(features, 1))))
        return self.conv2(self.relu(self.norm2(x)))


class DenseBlock(nn.ModuleDict):
    def __init__(self, layers: int, inputs: int, growth: int) -> None:
        super().__init__({f"layer{i}": DenseLayer(inputs + i * growth, growth) for i in range(layers)})

    def forward(self, x: Tensor) -> Tensor:
        features = [x]
        for layer in self.values():
            features.append(layer(features))
        return torch.cat(features, 1)


def densenet(growth: int = 8, layers: int = 3, classes: int = 10) -> nn.Module:
    """Two dense blocks with a transition between them."""
    stem, wide = 16, 16 + layers * growth
    thin = wide // 2
    end = thin + layers * growth
    transition = [nn.BatchNorm2d(wide), nn.ReLU(inplace=True), nn.Conv2d(wide, thin, 1, bias=False)]
    return nn.Sequential(
        *conv_norm(3, stem, 3, 2),
        nn.ReLU(inplace=True),
        DenseBlock(layers, stem, growth),
        *transition,
        nn.AvgPool2d(2),
        DenseBlock(layers, thin, growth),
        nn.BatchNorm2d(end),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(end, classes),
    )
