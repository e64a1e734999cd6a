"""Small, faithful definitions of the architectures that people compress; weights are drawn, not trained."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tests.support.architectures.classic import BasicBlock, Bottleneck, ResNet, densenet, vgg
from tests.support.architectures.dense_outputs import Pyramid, UNet, sound, video
from tests.support.architectures.mobile import efficientnet, efficientnet_lite, mobilenet_v2, mobilenet_v3


@dataclass(frozen=True)
class Architecture:
    build: Callable[[], nn.Module]
    shape: tuple[int, ...] = (3, 32, 32)


IMAGES: dict[str, Architecture] = {
    "vgg": Architecture(vgg),
    "resnet_basic": Architecture(lambda: ResNet(BasicBlock, (12, 20))),
    "resnet_bottleneck": Architecture(lambda: ResNet(Bottleneck, (8, 12))),
    "resnext": Architecture(lambda: ResNet(Bottleneck, (16, 24), groups=4)),
    "densenet": Architecture(densenet, (3, 24, 24)),
    "mobilenet_v2": Architecture(mobilenet_v2),
    "mobilenet_v3": Architecture(mobilenet_v3),
    "efficientnet": Architecture(efficientnet),
    "efficientnet_lite": Architecture(efficientnet_lite, (3, 31, 30)),
    "unet": Architecture(UNet, (3, 16, 16)),
    "pyramid": Architecture(Pyramid, (3, 16, 16)),
}
OTHERS: dict[str, Architecture] = {
    "sound": Architecture(sound, (3, 32)),
    "video": Architecture(video, (3, 6, 10, 10)),
}
ALL = IMAGES | OTHERS


def build(name: str, seed: int = 0) -> nn.Module:
    """In eval mode, with He-sized weights, biases, and batch norms that saw the network's own values."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = ALL[name].build()
        network(inputs(name, 2))
        for module in network.modules():
            _draw(module)
        network.train()
        with torch.no_grad():
            for _ in range(3):
                network(inputs(name, 16))
        for module in network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, std=0.2)
    return network.eval()


def _draw(module: nn.Module) -> None:
    if isinstance(module, nn.modules.conv._ConvNd | nn.Linear):
        nn.init.kaiming_normal_(module.weight)
        if module.bias is not None:
            nn.init.normal_(module.bias, std=0.1)
    elif isinstance(module, nn.modules.batchnorm._BatchNorm):
        module.momentum = 0.5


def inputs(name: str, n: int, seed: int = 5) -> Tensor:
    """Smooth random inputs: neighbouring values are alike, as in photographs."""
    channels, *sizes = ALL[name].shape
    draw = torch.Generator().manual_seed(seed)
    coarse = torch.randn(n, channels, *[-(-size // 2) for size in sizes], generator=draw)
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(sizes)]
    return nn.functional.interpolate(coarse, size=tuple(sizes), mode=mode)
