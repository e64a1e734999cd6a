"""ONNX files of unknown operators and versions, and with evil words in all that is text."""

from collections.abc import Callable
from typing import Any

import onnx
from onnx import ModelProto, NodeProto, helper

from tests.formats.nets import conv, conv_weights, graph
from tests.hostile.corpus import READY, Traps, add
from tests.hostile.corpus.onnx_case import MALFORMED, UNKNOWN, case, changed, plain
from tests.hostile.corpus.payloads import pickled

# Operators.


def node_of(kind: str, inputs: int = 1, domain: str = "", **attributes: Any) -> NodeProto:
    return helper.make_node(kind, ["x"] * inputs, ["c"], "odd", domain=domain, **attributes)


OPERATORS: dict[str, NodeProto] = {
    "of an unknown domain": node_of("Run", domain="evil.example"),
    "of Microsoft's domain": node_of("FusedConv", 2, domain="com.microsoft"),
    "of training's domain": node_of("Gradient", domain="ai.onnx.preview.training", xs=["x"], y="x"),
    "of machine learning's domain": node_of("Scaler", domain="ai.onnx.ml"),
    "that runs Python": node_of("PyOp", domain="pyopmulti_2", module="os", class_name="system"),
    "that ATen evaluates": node_of("ATen", domain="org.pytorch.aten", operator="system"),
    "that does not exist": node_of("LaunchMissiles"),
    "with a name of a megabyte": node_of("X" * 1_000_000),
    "with a name of control characters": node_of("Conv\x00\x1b[2J"),
    "that makes random numbers": node_of("RandomNormalLike"),
    "that draws lots": node_of("Bernoulli"),
    "for texts": node_of("StringNormalizer"),
    "for optional values": node_of("Optional"),
    "for sequences": node_of("SequenceConstruct"),
    "for deformable convolutions": node_of("DeformConv", 3),
}
for _name, _node in OPERATORS.items():
    case(
        f"an operator {_name}",
        lambda node=_node: graph(
            [node, conv(source="c")], conv_weights(), domains=sorted({node.domain} - {""})
        ),
        f"{UNKNOWN} {MALFORMED}",
    )


def own_conv(domain: str) -> ModelProto:
    """A function of the file's own that takes the place of a standard operator."""
    body = [helper.make_node("Relu", ["a"], ["b"])]
    function = helper.make_function(
        domain, "Conv", ["a", "w", "c"], ["b"], body, [helper.make_opsetid("", 17)]
    )
    model = plain()
    model.functions.append(function)
    return model


case(
    "its own function in the place of Conv",
    lambda: own_conv(""),
    f"{MALFORMED} {UNKNOWN} import_mismatch {READY}",
)
case(
    "its own function in the place of ai.onnx's Conv",
    lambda: own_conv("ai.onnx"),
    f"{MALFORMED} {UNKNOWN} import_mismatch {READY}",
)


def opsets(*versions: tuple[str, int]) -> Callable[[], ModelProto]:
    def change(model: ModelProto) -> None:
        del model.opset_import[:]
        for domain, version in versions:
            model.opset_import.append(helper.make_opsetid(domain, version))

    return changed(change)


for _name, _versions in {
    "no opset": [],
    "opset 0": [("", 0)],
    "opset -1": [("", -1)],
    "opset 2^62": [("", 1 << 62)],
    "two opsets": [("", 17), ("", 7)],
    "100,000 opsets": [(f"d{number}", 1) for number in range(100_000)],
}.items():
    case(_name, opsets(*_versions), f"{MALFORMED} {UNKNOWN} {READY}")
case("a version of ONNX to come", changed(lambda m: setattr(m, "ir_version", 1 << 40)), MALFORMED)
case("a version of ONNX below zero", changed(lambda m: setattr(m, "ir_version", -1)), MALFORMED)


# Words.


def described(**texts: str) -> Callable[[], ModelProto]:
    def change(model: ModelProto) -> None:
        for name, text in texts.items():
            setattr(model, name, text)
        for key in ("<script>alert(1)</script>", "\u202eevil", "x" * 10_000, "../../etc"):
            model.metadata_props.add(key=key, value=key)

    return changed(change)


HTML = "<script>alert(1)</script><img src=x onerror=alert(2)>"
case(
    "HTML in everything it says of itself",
    described(producer_name=HTML, doc_string=HTML, domain=HTML),
    READY,
)


def named(name: str) -> Callable[[], ModelProto]:
    return lambda: graph([conv(name)], conv_weights(name))


NODE_NAMES = {
    "HTML": HTML,
    "ten thousand letters": "n" * 10_000,
    "a path": "../../../etc/passwd",
    "NUL and control characters": "a\0b\x1b[2J\r\n",
    "text that turns its direction": "\u202eedoc\u2066x",
    "format marks": "%s%n{0.__class__}{{7*7}}",
    "Python": "__class__.__init__.__globals__",
    "torch's own words": "forward.graph._modules",
    "lone accents": "e\u0301" * 500,
}
for _name, _text in NODE_NAMES.items():
    case(f"a layer named by {_name}", named(_text), f"{READY} {MALFORMED}")


def with_pickle_for_text(traps: Traps) -> bytes:
    """A pickle in the metadata, for readers that unpickle what they find there."""
    model = plain()
    model.metadata_props.add(key="config", value=pickled(traps, 0).decode("latin-1"))
    return model.SerializeToString()


add("onnx", "a pickle in its metadata", with_pickle_for_text, READY)
assert onnx.__version__
