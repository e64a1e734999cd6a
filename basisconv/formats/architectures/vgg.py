"""VGG (Simonyan and Zisserman 2014), with and without batch norms."""

from collections.abc import Mapping
from typing import Final

from torch import Tensor, nn
from torch.nn import functional as F

# Depth: convolutions of the five stages, each of which a pool ends.
PLANS: Final[dict[int, tuple[int, ...]]] = {
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}
_WIDTHS: Final = (64, 128, 256, 512, 512)
_POOLED: Final = 7
_HIDDEN: Final = 4096


class Vgg(nn.Module):
    def __init__(self, depth: int, norm: bool, classes: int, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width, count in zip(_WIDTHS, PLANS[depth], strict=True):
            for _ in range(count):
                layers.append(nn.Conv2d(channels, width, 3, padding=1))
                layers += [nn.BatchNorm2d(width), nn.ReLU()] if norm else [nn.ReLU()]
                channels = width
            layers.append(nn.MaxPool2d(2, 2))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            *(nn.Linear(channels * _POOLED**2, _HIDDEN), nn.ReLU(), nn.Dropout()),
            *(nn.Linear(_HIDDEN, _HIDDEN), nn.ReLU(), nn.Dropout()),
            nn.Linear(_HIDDEN, classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = F.adaptive_avg_pool2d(self.features(x), _POOLED)
        scores: Tensor = self.classifier(x.flatten(1))
        return scores


def build(depth: int, norm: bool, _: Mapping[str, Tensor], classes: int, channels: int) -> nn.Module:
    return Vgg(depth, norm, classes, channels)
