"""Networks that answer with maps or boxes, or see one or three dimensions; tiny widths, no weights."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def double(inputs: int, outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        layers += [nn.Conv2d(channels, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class UNet(nn.Module):
    """Ronneberger et al. 2015: pooling down, transposed convolutions up, features concatenated across."""

    def __init__(self, width: int = 8, classes: int = 3) -> None:
        super().__init__()
        self.down1, self.down2 = double(3, width), double(width, 2 * width)
        self.bottom = double(2 * width, 4 * width)
        self.up2, self.up1 = (
            nn.ConvTranspose2d(4 * width, 2 * width, 2, 2),
            nn.ConvTranspose2d(2 * width, width, 2, 2),
        )
        self.merge2, self.merge1 = double(4 * width, 2 * width), double(2 * width, width)
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        fine = self.down1(x)
        coarse = self.down2(F.max_pool2d(fine, 2))
        y = self.bottom(F.max_pool2d(coarse, 2))
        y = self.merge2(torch.cat([coarse, self.up2(y)], 1))
        y = self.merge1(torch.cat([fine, self.up1(y)], 1))
        return self.head(y)


class Pyramid(nn.Module):
    """A detector (Lin et al. 2017): a feature pyramid whose levels share the convolutions of both heads."""

    def __init__(self, width: int = 16, classes: int = 4) -> None:
        super().__init__()
        self.stem = double(3, 12)
        self.stages = nn.ModuleList([double(12, 24), double(24, 32)])
        self.lateral = nn.ModuleList([nn.Conv2d(24, width, 1), nn.Conv2d(32, width, 1)])
        self.smooth = nn.ModuleList([nn.Conv2d(width, width, 3, padding=1) for _ in range(2)])
        self.scores = self._head(width, classes)
        self.boxes = self._head(width, 4)

    @staticmethod
    def _head(width: int, outputs: int) -> nn.Sequential:
        convs = [nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1)]
        return nn.Sequential(*convs, nn.ReLU(), nn.Conv2d(width, outputs, 3, padding=1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        fine = self.stages[0](F.max_pool2d(self.stem(x), 2))
        coarse = self.stages[1](F.max_pool2d(fine, 2))
        top = self.lateral[1](coarse)
        below = self.lateral[0](fine) + F.interpolate(top, scale_factor=2.0, mode="nearest")
        levels = [self.smooth[0](below), self.smooth[1](top)]
        scores = torch.cat([self.scores(level).flatten(2) for level in levels], 2)
        boxes = torch.cat([self.boxes(level).flatten(2) for level in levels], 2)
        return scores, boxes


def sound(classes: int = 5) -> nn.Module:
    """Convolutions over time: N x C x T."""
    return nn.Sequential(
        nn.Conv1d(3, 16, 5, padding=2),
        nn.ReLU(),
        nn.Conv1d(16, 24, 3, 2, 1),
        nn.ReLU(),
        nn.AdaptiveAvgPool1d(4),
        nn.Flatten(),
        nn.Linear(96, 48),
        nn.ReLU(),
        nn.Linear(48, classes),
    )


def video(classes: int = 5) -> nn.Module:
    """Convolutions over space and time: N x C x T x H x W."""
    return nn.Sequential(
        nn.Conv3d(3, 8, 3, padding=1),
        nn.BatchNorm3d(8),
        nn.ReLU(),
        nn.Conv3d(8, 16, 3, 2, 1),
        nn.ReLU(),
        nn.AdaptiveAvgPool3d(2),
        nn.Flatten(),
        nn.Linear(128, 48),
        nn.ReLU(),
        nn.Linear(48, classes),
    )
