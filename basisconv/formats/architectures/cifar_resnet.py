"""ResNets of 6n + 2 layers for images of 32 pixels (He et al. 2015, section 4.2).

Where the width changes, the shortcut skips pixels and pads channels with zeros (option A, nothing to learn),
or is a 1x1 convolution (option B): the weights tell which, and how their authors call it and the last layer.
"""

from collections.abc import Mapping
from typing import Final

from torch import Tensor, nn
from torch.nn import functional as F

HEADS: Final = ("fc", "linear", "classifier")
_SHORTCUTS: Final = ("downsample", "shortcut")


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, shortcut: str | None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        changes = stride != 1 or inputs != outputs
        self.padded = (outputs - inputs) // 2 if changes and shortcut is None else 0
        self.named = shortcut if changes else None
        if self.named is not None:
            conv = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.add_module(self.named, nn.Sequential(conv, nn.BatchNorm2d(outputs)))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self._shortcut(x))

    def _shortcut(self, x: Tensor) -> Tensor:
        if self.named is not None:
            made: Tensor = self.get_submodule(self.named)(x)
            return made
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.padded, self.padded)) if self.padded else x


class CifarResNet(nn.Module):
    def __init__(self, depth: int, classes: int, channels: int, head: str, shortcut: str | None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        inputs = 16
        for stage in range(3):
            outputs = 16 << stage
            made = [
                Block(outputs if i else inputs, outputs, 2 if stage and not i else 1, shortcut)
                for i in range((depth - 2) // 6)
            ]
            self.add_module(f"layer{stage + 1}", nn.Sequential(*made))
            inputs = outputs
        self.head = head
        self.add_module(head, nn.Linear(inputs, classes))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        for stage in range(1, 4):
            x = self.get_submodule(f"layer{stage}")(x)
        scores: Tensor = self.get_submodule(self.head)(F.adaptive_avg_pool2d(x, 1).flatten(1))
        return scores


def build(depth: int, weights: Mapping[str, Tensor], classes: int, channels: int) -> nn.Module:
    head = next(name for name in HEADS if f"{name}.weight" in weights)
    shortcut = next((name for name in _SHORTCUTS if f"layer2.0.{name}.0.weight" in weights), None)
    return CifarResNet(depth, classes, channels, head, shortcut)
