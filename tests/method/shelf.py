"""Small networks with one difficulty each, and layers of every geometry."""

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor, nn


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randomize(module: nn.Module, seed: int = 0) -> nn.Module:
    """Weights of a trained network's size and statistics that are not the defaults."""
    draw = seeded(seed)
    for child in module.modules():
        if isinstance(child, nn.BatchNorm2d):
            child.weight.data = torch.rand(child.num_features, generator=draw) + 0.5
            child.bias.data = torch.randn(child.num_features, generator=draw) * 0.2
            child.running_mean = torch.randn(child.num_features, generator=draw) * 0.2
            child.running_var = torch.rand(child.num_features, generator=draw) + 0.5
        elif isinstance(child, nn.Conv2d | nn.Linear):
            fan_in = child.weight[0].numel()
            child.weight.data = torch.randn(child.weight.shape, generator=draw) * (2 / fan_in) ** 0.5
            if child.bias is not None:
                child.bias.data = torch.randn(child.bias.shape, generator=draw) * 0.1
    return module.eval()


class Block(nn.Module):
    """A residual block whose shortcut is a 1x1 convolution; ReLUs work in place."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.down = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        y += self.down(x)
        return self.relu(y)


class Residual(nn.Module):
    """Stem, two residual blocks, a classifier of 10 classes for 3 x 12 x 12 images."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, padding=1)
        self.block1 = Block(12, 16, 1)
        self.block2 = Block(16, 24, 2)
        self.head = nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block2(self.block1(F.relu(self.stem(x), inplace=True)))
        return self.head(x.mean((2, 3)))


class Mixed(nn.Module):
    """Grouped, depthwise, dilated, strided, unpadded and 1x1 convolutions; a softmax at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.grouped = nn.Conv2d(4, 16, 3, padding=1, groups=2)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.dilated = nn.Conv2d(16, 12, 3, dilation=2, padding="same")
        self.strided = nn.Conv2d(12, 16, (3, 5), stride=(2, 1), padding=(0, 2), padding_mode="reflect")
        self.pointwise = nn.Conv2d(16, 64, 1)
        self.narrow = nn.Conv2d(64, 2, 1)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.depthwise(F.relu(self.grouped(x))))
        x = F.relu(self.strided(F.relu(self.dilated(x))))
        x = self.narrow(F.relu(self.pointwise(x)))
        return F.softmax(self.head(F.adaptive_avg_pool2d(x, 2).flatten(1)), 1)


class Untraceable(nn.Module):
    """Control flow on values: fx cannot trace it. Two outputs, neither of them class scores."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 12, 3, padding=1)
        self.b = nn.Conv2d(12, 16, 3, padding=1)
        self.c = nn.Conv2d(16, 6, 3, padding=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = F.relu(self.a(x))
        y = F.relu(self.b(y)) if bool(y.sum() > -1) else y
        return y, self.c(y)


def images(channels: int = 3, size: int = 12, n: int = 96, seed: int = 7) -> Tensor:
    """Smooth random images: neighbouring pixels are alike, as in photographs."""
    noise = torch.randn(n, channels, size // 2, size // 2, generator=seeded(seed))
    return F.interpolate(noise, size=(size, size), mode="bilinear")


@st.composite
def convolutions(draw: st.DrawFn) -> nn.Conv2d:
    """Every stride, padding, dilation, padding mode, group count and aspect."""
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    kernel = (draw(st.integers(1, 4)), draw(st.integers(1, 4)))
    dilation = (draw(st.integers(1, 2)), draw(st.integers(1, 2)))
    stride = (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    padding = draw(st.sampled_from(["same", "valid", (0, 1), (2, 0), (1, 2)]))
    if padding == "same":
        stride = (1, 1)
    conv = nn.Conv2d(
        groups * draw(st.integers(1, 4)),
        groups * draw(st.integers(1, 5)),
        kernel,
        stride,
        padding,
        dilation,
        groups,
        draw(st.booleans()),
        draw(st.sampled_from(["zeros", "zeros", "reflect", "replicate", "circular"])),
    )
    randomize(conv, draw(st.integers(0, 1000)))
    return conv.double()


def input_for(conv: nn.Conv2d, n: int = 2) -> Tensor:
    return torch.randn(n, conv.in_channels, 11, 13, generator=seeded(3), dtype=conv.weight.dtype)
