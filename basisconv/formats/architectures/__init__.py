"""Networks that weights alone can be read into: definitions of our own under the usual names of the keys.

Those of torchvision for images of 224 pixels, and He's ResNets for CIFAR. The number of classes, the channels
of the image and, for CIFAR, the kind of shortcut follow from the weights.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

from torch import Tensor, nn

from basisconv.errors import MethodError
from basisconv.formats.architectures import cifar_resnet, densenet, mobilenet, resnet, vgg

Weights = Mapping[str, Tensor]
_MAX_CLASSES: Final = 1_000_000
_MAX_CHANNELS: Final = 1_000


@dataclass(frozen=True)
class Architecture:
    """How to build a network for given classes and channels, and where its weights tell both."""

    build: Callable[[Weights, int, int], nn.Module]  # weights, classes, channels
    first: str  # key of the first convolution's weight
    heads: tuple[str, ...]  # keys of the last matrix, whichever is there
    side: int  # of the images that it is usually made for

    def make(self, weights: Weights, name: str) -> nn.Module:
        """The network that these weights seem to be of; whether they are is compared later."""
        return self.build(
            weights, self._size(weights, self.heads, 0, _MAX_CLASSES, name), self.channels(weights, name)
        )

    def channels(self, weights: Weights, name: str) -> int:
        return self._size(weights, (self.first,), 1, _MAX_CHANNELS, name)

    def _size(self, weights: Weights, keys: tuple[str, ...], axis: int, most: int, name: str) -> int:
        key = next((key for key in keys if key in weights), None)
        if key is None:
            some = ", ".join(list(weights)[:3])
            raise _refused(
                f"The weights have no {' or '.join(keys)}, which {name} has; they have {len(weights):,} "
                f"others, such as {some[:300]}."
            )
        shape = tuple(weights[key].shape)
        if len(shape) <= axis or not 1 <= shape[axis] <= most:
            raise _refused(f"{key} has the shape {list(shape)}, which no {name} has.")
        return shape[axis]


def _refused(detail: str) -> MethodError:
    return MethodError(
        "malformed_model",
        detail,
        hint="Name the architecture that the weights are of: GET /v1/architectures.",
    )


def _resnet(depth: int, groups: int = 1, width: int = 64) -> Architecture:
    build = partial(resnet.build, depth, groups=groups, width=width)
    return Architecture(build, "conv1.weight", ("fc.weight",), 224)


def _cifar(depth: int) -> Architecture:
    heads = tuple(f"{name}.weight" for name in cifar_resnet.HEADS)
    return Architecture(partial(cifar_resnet.build, depth), "conv1.weight", heads, 32)


def _vgg(depth: int, *, norm: bool) -> Architecture:
    return Architecture(partial(vgg.build, depth, norm), "features.0.weight", ("classifier.6.weight",), 224)


def _densenet(depth: int) -> Architecture:
    return Architecture(partial(densenet.build, depth), "features.conv0.weight", ("classifier.weight",), 224)


KNOWN: Final[dict[str, Architecture]] = {
    **{f"resnet{depth}": _resnet(depth) for depth in resnet.DEPTHS},
    "resnext50_32x4d": _resnet(50, groups=32, width=4),
    "wide_resnet50_2": _resnet(50, width=128),
    **{f"cifar_resnet{depth}": _cifar(depth) for depth in (20, 32, 44, 56, 110)},
    **{
        f"vgg{depth}{'_bn' if norm else ''}": _vgg(depth, norm=norm)
        for depth in vgg.PLANS
        for norm in (False, True)
    },
    "mobilenet_v2": Architecture(mobilenet.build, "features.0.0.weight", ("classifier.1.weight",), 224),
    **{f"densenet{depth}": _densenet(depth) for depth in densenet.BLOCKS},
}
