"""The networks that weights alone can be uploaded for, as data: what builds them is the inspector's."""

from dataclasses import dataclass
from typing import Final, Literal

from fastapi import APIRouter
from pydantic import Field

from app.core.errors import UnsafeSerialization, UnsupportedFormat
from app.core.pagination import Listing
from app.core.problems import invalid, raises
from app.core.routes import OneThread
from app.core.schemas import Shown
from app.core.security import Reader
from app.models.sniff import EXPORT, Format

ADDRESS: Final = "/v1/architectures"
_LARGE, _CIFAR = 224, 32


@dataclass(frozen=True)
class Architecture:
    """One of them: what its weights are called, and the image that it is usually made for."""

    id: str
    title: str
    side: int
    first: str
    heads: tuple[str, ...]


def _resnet(name: str, title: str) -> Architecture:
    return Architecture(name, title, _LARGE, "conv1.weight", ("fc.weight",))


def _cifar(depth: int) -> Architecture:
    heads = ("fc.weight", "linear.weight", "classifier.weight")
    return Architecture(f"cifar_resnet{depth}", f"ResNet-{depth} for CIFAR", _CIFAR, "conv1.weight", heads)


def _vgg(depth: int, norm: str) -> Architecture:
    title = f"VGG-{depth}{' with batch norms' if norm else ''}"
    return Architecture(f"vgg{depth}{norm}", title, _LARGE, "features.0.weight", ("classifier.6.weight",))


def _densenet(depth: int) -> Architecture:
    first, head = "features.conv0.weight", ("classifier.weight",)
    return Architecture(f"densenet{depth}", f"DenseNet-{depth}", _LARGE, first, head)


KNOWN: Final = {
    architecture.id: architecture
    for architecture in (
        *(_resnet(f"resnet{depth}", f"ResNet-{depth}") for depth in (18, 34, 50, 101, 152)),
        _resnet("resnext50_32x4d", "ResNeXt-50 32x4d"),
        _resnet("wide_resnet50_2", "Wide ResNet-50-2"),
        *(_cifar(depth) for depth in (20, 32, 44, 56, 110)),
        *(_vgg(depth, norm) for depth in (11, 13, 16, 19) for norm in ("", "_bn")),
        Architecture("mobilenet_v2", "MobileNetV2", _LARGE, "features.0.0.weight", ("classifier.1.weight",)),
        *(_densenet(depth) for depth in (121, 161, 169, 201)),
    )
}


def require_known(found: Format, architecture: str | None, head: bytes) -> None:
    """Refuse weights that name no network, or one that is not known."""
    if found != "weights":
        return
    if architecture is not None:
        if architecture not in KNOWN:
            raise invalid(
                ("architecture",), f"{architecture[:60]!r} is not known; known are {', '.join(KNOWN)}."
            )
        return
    hint = f"Name its network in the field `architecture`; GET {ADDRESS} lists those that are known."
    if head.startswith(b"PK"):
        raise UnsafeSerialization(
            "The file is a torch.save archive: its data.pkl is a Python pickle, which can run any code.",
            hint=f"{EXPORT} Of weights alone: {hint[0].lower()}{hint[1:]}",
        )
    raise UnsupportedFormat("The file is a safetensors file: weights without a network.", hint=hint)


class ArchitectureOut(Shown):
    """A network that weights alone can be uploaded for, with the keys that they are told by."""

    id: str
    object: Literal["architecture"] = "architecture"
    title: str
    shape: list[int] = Field(
        description="C, H, W of the images that it is usually made for; `input` tells others."
    )
    first: str = Field(description="Key of the first convolution's weight, which tells the channels.")
    heads: list[str] = Field(description="Key of the last matrix, one of these; it tells the classes.")


router = APIRouter(prefix=ADDRESS, tags=["models"], route_class=OneThread)


@router.get("", responses=raises())
def list_architectures(_: Reader) -> Listing[ArchitectureOut]:
    """The networks that a file of weights alone can name in the field `architecture`."""
    shown = [
        ArchitectureOut(
            id=one.id, title=one.title, shape=[3, one.side, one.side], first=one.first, heads=list(one.heads)
        )
        for one in KNOWN.values()
    ]
    return Listing(data=shown, has_more=False, first_id=shown[0].id, last_id=shown[-1].id)
