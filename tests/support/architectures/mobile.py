"""MobileNetV2, MobileNetV3 and EfficientNet: the published blocks at tiny widths, no weights."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

Activation = Callable[[], nn.Module]


class ConvNormAct(nn.Sequential):
    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int, groups: int, act: Activation | None
    ) -> None:
        conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        super().__init__(conv, nn.BatchNorm2d(outputs), *([] if act is None else [act()]))


class SqueezeExcite(nn.Module):
    """Hu et al. 2017: channels weighed by two 1x1 convolutions of the image's mean."""

    def __init__(self, channels: int, squeezed: int, act: Activation, gate: Activation) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.reduce = nn.Conv2d(channels, squeezed, 1)
        self.act = act()
        self.expand = nn.Conv2d(squeezed, channels, 1)
        self.gate = gate()

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(self.expand(self.act(self.reduce(self.pool(x)))))


class InvertedResidual(nn.Module):
    """Sandler et al. 2018: 1x1 wider, depthwise, optional squeeze and excite, 1x1 narrower without a ReLU."""

    def __init__(
        self,
        inputs: int,
        wide: int,
        outputs: int,
        kernel: int,
        stride: int,
        act: Activation,
        squeeze: tuple[int, Activation, Activation] | None = None,
    ) -> None:
        super().__init__()
        self.expand = ConvNormAct(inputs, wide, 1, 1, 1, act) if wide != inputs else nn.Identity()
        self.depthwise = ConvNormAct(wide, wide, kernel, stride, wide, act)
        self.squeeze = nn.Identity() if squeeze is None else SqueezeExcite(wide, *squeeze)
        self.project = ConvNormAct(wide, outputs, 1, 1, 1, None)
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.squeeze(self.depthwise(self.expand(x))))
        return x + y if self.adds else y


class Mobile(nn.Module):
    """A stem, inverted residuals, a wide 1x1, pooling and a classifier."""

    def __init__(
        self, blocks: Sequence[nn.Module], stem: int, last: int, wide: int, act: Activation, head: nn.Module
    ) -> None:
        super().__init__()
        self.stem = ConvNormAct(3, stem, 3, 2, 1, act)
        self.blocks = nn.Sequential(*blocks)
        self.last = ConvNormAct(last, wide, 1, 1, 1, act)
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        x = self.last(self.blocks(self.stem(x)))
        return self.head(x.mean([2, 3]))


def mobilenet_v2(classes: int = 10) -> nn.Module:
    rows = [(12, 12, 8, 1), (8, 48, 12, 2), (12, 72, 12, 1), (12, 72, 16, 2), (16, 96, 16, 1)]
    blocks = [InvertedResidual(i, wide, o, 3, s, nn.ReLU6) for i, wide, o, s in rows]
    head = nn.Sequential(nn.Dropout(0.2), nn.Linear(64, classes))
    return Mobile(blocks, 12, 16, 64, nn.ReLU6, head)


def mobilenet_v3(classes: int = 10) -> nn.Module:
    """Howard et al. 2019: kernels of 3 and 5, hard swish, squeeze and excite with a hard sigmoid."""

    def squeeze(width: int) -> tuple[int, Activation, Activation]:
        return (width // 4, nn.ReLU, nn.Hardsigmoid)

    blocks = [
        InvertedResidual(12, 12, 12, 3, 2, nn.ReLU, squeeze(12)),
        InvertedResidual(12, 48, 16, 3, 2, nn.ReLU),
        InvertedResidual(16, 64, 16, 5, 1, nn.Hardswish, squeeze(64)),
        InvertedResidual(16, 96, 24, 5, 1, nn.Hardswish, squeeze(96)),
    ]
    head = nn.Sequential(nn.Linear(72, 64), nn.Hardswish(), nn.Dropout(0.2), nn.Linear(64, classes))
    return Mobile(blocks, 12, 24, 72, nn.Hardswish, head)


def efficientnet(classes: int = 10) -> nn.Module:
    """Tan and Le 2019: MBConv with SiLU; squeeze and excite sized by the block's input."""

    def mbconv(inputs: int, expansion: int, outputs: int, kernel: int, stride: int) -> nn.Module:
        squeeze = (max(1, inputs // 4), nn.SiLU, nn.Sigmoid)
        return InvertedResidual(inputs, inputs * expansion, outputs, kernel, stride, nn.SiLU, squeeze)

    blocks = [
        mbconv(16, 1, 12, 3, 1),
        mbconv(12, 6, 12, 3, 2),
        mbconv(12, 6, 20, 5, 2),
        mbconv(20, 6, 20, 5, 1),
    ]
    head = nn.Sequential(nn.Dropout(0.2), nn.Linear(80, classes))
    return Mobile(blocks, 16, 20, 80, nn.SiLU, head)


class PadSame(nn.Module):
    """TensorFlow's padding, as EfficientNet-Lite has it: more on the right and below where it is uneven."""

    def __init__(self, kernel: int, stride: int) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        pads: list[int] = []
        for size in (x.shape[3], x.shape[2]):
            total = max(((size - 1) // self.stride) * self.stride + self.kernel - size, 0)
            pads += [total // 2, total - total // 2]
        return torch.nn.functional.pad(x, pads)


def efficientnet_lite(classes: int = 10) -> nn.Module:
    """No squeeze and excite, ReLU6, and uneven padding in front of strided convolutions."""

    def strided(inputs: int, outputs: int, kernel: int, groups: int = 1) -> nn.Sequential:
        conv = nn.Conv2d(inputs, outputs, kernel, 2, 0, groups=groups, bias=False)
        return nn.Sequential(PadSame(kernel, 2), conv, nn.BatchNorm2d(outputs), nn.ReLU6())

    return nn.Sequential(
        strided(3, 16, 3),
        ConvNormAct(16, 48, 3, 1, 1, nn.ReLU6),
        strided(48, 48, 5, 48),
        ConvNormAct(48, 16, 1, 1, 1, None),
        InvertedResidual(16, 96, 16, 3, 1, nn.ReLU6),
        strided(16, 32, 3),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, classes),
    )
