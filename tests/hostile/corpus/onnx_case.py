"""What the hostile ONNX files share: a case, a harmless network, and a change to it."""

from collections.abc import Callable
from typing import Any

from onnx import ModelProto

from tests.formats.nets import conv, conv_weights, graph
from tests.hostile.corpus import Traps, add

MALFORMED = "malformed_model"
OUTSIDE = "external_data_not_allowed"
UNKNOWN = "unsupported_operator"


def case(name: str, model: Callable[[], ModelProto | bytes], codes: str, **more: Any) -> None:
    def make(_: Traps) -> bytes:
        made = model()
        return made if isinstance(made, bytes) else made.SerializeToString()

    add("onnx", name, make, codes, **more)


def plain() -> ModelProto:
    return graph([conv()], conv_weights())


def changed(change: Callable[[ModelProto], object]) -> Callable[[], ModelProto]:
    """One convolution, after `change` has had its way with it."""

    def make() -> ModelProto:
        model = plain()
        change(model)
        return model

    return make
