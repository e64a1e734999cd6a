"""The graph of a .pt2 as plain JSON -> the same graph, rebuilt from known words only.

Every string that torch's deserialiser would evaluate, import, look up or print into generated source is
checked against a closed list or a strict pattern; what it does not need (stack traces, guards, tree types,
devices) is left out or written by us.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Callable
from typing import Any, Final

from torch._export.serde.schema import SCHEMA_VERSION
from torch.utils import _pytree as pytree

from basisconv.errors import MethodError
from basisconv.formats.names import quoted
from basisconv.formats.pt2_archive import SAVE_AGAIN, malformed, unsafe
from basisconv.formats.pt2_ops import is_allowed

Json = dict[str, Any]

MAX_NODES: Final = 10_000  # ResNet-152 has 600
# Of a symbolic size: sympy multiplies out, and terms to the power of factors are what comes of it.
MAX_LETTERS: Final = 500
MAX_FACTORS: Final = 8
MAX_DEPTH: Final = 24
_SYMBOL: Final = re.compile(r"[su]\d{1,9}")
_KNOWN = (
    "Symbol positive integer nonnegative True False Integer Max Min Mod PythonMod FloorDiv CleanDiv CeilDiv "
    "CeilToInt FloorToInt TruncToInt RoundToInt ToFloat IntTrueDiv FloatTrueDiv ModularIndexing "
    "Identity Add Mul Eq Ne Ge Gt Le Lt And Or Not"
)
_WORDS: Final = frozenset(_KNOWN.split())
_TOKEN: Final = re.compile(
    r"\s*(?:([A-Za-z_]\w*)|'([su]\d{1,9})'|(\d{1,18}(?:\.\d{1,18})?)|(//|[-+*/%(),=<>!&|~]))"
)
_SIMPLE: Final = {"as_int": int, "as_float": (int, float), "as_bool": bool, "as_none": bool}
_LISTS: Final = {"as_ints": int, "as_floats": (int, float), "as_bools": bool}
_ENUMS: Final = ("as_scalar_type", "as_memory_format", "as_layout")


def rebuild(program: Json) -> Json:
    """The exported program, fit for torch's own deserialiser.

    Raises unsafe_serialization, unsupported_operator or malformed_model, saying what and where.
    """
    version = _object(program.get("schema_version"), "schema_version")
    if version.get("major") != SCHEMA_VERSION[0]:
        malformed(
            f"Its schema version is {version.get('major')}, torch 2.13 reads {SCHEMA_VERSION[0]}: "
            f"it was saved by torch {str(program.get('torch_version'))[:40]}."
        )
    module = _object(program.get("graph_module"), "graph_module")
    graph = _object(module.get("graph"), "graph")
    verifiers = [word for word in program.get("verifiers") or [] if word in ("TRAINING", "ATEN", "EDGE")]
    signature = _signature(_object(module.get("signature"), "signature"))
    return {
        "graph_module": {
            "graph": _graph(graph),
            "signature": signature,
            "module_call_graph": [_root_call(signature)],
            "metadata": {},
            "treespec_namedtuple_fields": {},
        },
        "opset_version": {
            "aten": _integer(_object(program.get("opset_version"), "opset_version").get("aten"))
        },
        "range_constraints": _ranges(_object(program.get("range_constraints"), "range_constraints")),
        "schema_version": {"major": version["major"], "minor": _integer(version.get("minor"))},
        "verifiers": [word for word in verifiers if word != "EDGE"] or ["TRAINING"],
        "torch_version": "2.13.0",
        "guards_code": [],
    }


def _object(value: Any, what: str) -> Json:
    if not isinstance(value, dict):
        malformed(f"Its {what} is not a JSON object.")
    return value


def _list(value: Any, what: str) -> list[Any]:
    if not isinstance(value, list):
        malformed(f"Its {what} is not a list.")
    return value


def _integer(value: Any) -> int:
    if type(value) is not int or abs(value) >= 2**63:
        malformed(f"{quoted(value)} stands where a whole number is expected.")
    return value


def _name(value: Any) -> str:
    """A name that torch.fx may print into Python source."""
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z_]\w{0,299}", value, flags=re.ASCII):
        unsafe(f"{quoted(value)} is not a plain name.")
    if keyword.iskeyword(value):
        unsafe(f"The name {quoted(value)} is a word of Python.")
    return value


def _path(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[\w.]{1,500}", value, flags=re.ASCII):
        unsafe(f"{quoted(value)} is not the path of a parameter.")
    return value


def _ranges(ranges: Json) -> Json:
    result = {}
    for symbol, bounds in ranges.items():
        if not _SYMBOL.fullmatch(symbol):
            unsafe(f"{quoted(symbol)} is not a size symbol.")
        low, high = (_object(bounds, "range").get(key) for key in ("min_val", "max_val"))
        result[symbol] = {
            "min_val": None if low is None else _integer(low),
            "max_val": None if high is None else _integer(high),
        }
    return result


def _graph(graph: Json) -> Json:
    if graph.get("custom_obj_values"):
        unsafe("Its graph uses custom objects, which are pickles.")
    nodes = _list(graph.get("nodes"), "nodes")
    if len(nodes) > MAX_NODES:
        raise MethodError(
            "resource_limit",
            f"The network has {len(nodes):,} nodes; the limit is {MAX_NODES:,}.",
            hint="Simplify it before the export.",
        )
    return {
        "inputs": [_argument(value) for value in _list(graph.get("inputs"), "inputs")],
        "outputs": [_argument(value) for value in _list(graph.get("outputs"), "outputs")],
        "nodes": [_node(node) for node in nodes],
        "tensor_values": _named(graph, "tensor_values", _tensor_value),
        "sym_int_values": _named(graph, "sym_int_values", _size),
        "sym_bool_values": _named(graph, "sym_bool_values", _truth),
        "sym_float_values": _named(graph, "sym_float_values", _real),
        "is_single_tensor_return": False,
        "custom_obj_values": {},
    }


def _named(graph: Json, key: str, read: Callable[[Any], Json]) -> Json:
    return {_name(name): read(value) for name, value in _object(graph.get(key) or {}, key).items()}


def _tensor_value(meta: Any) -> Json:
    meta = _object(meta, "tensor value")
    return {
        "dtype": _integer(meta.get("dtype")),
        "sizes": [_size(size) for size in _list(meta.get("sizes"), "sizes")],
        "requires_grad": meta.get("requires_grad") is True,
        "device": {"type": "cpu", "index": None},
        "strides": [_size(size) for size in _list(meta.get("strides"), "strides")],
        "storage_offset": _size(meta.get("storage_offset")),
        "layout": _integer(meta.get("layout")),
    }


def _size(value: Any) -> Json:
    value = _object(value, "size")
    if "as_expr" in value:
        return {"as_expr": _expression(value["as_expr"])}
    return {"as_int": _integer(value.get("as_int"))}


def _truth(value: Any) -> Json:
    value = _object(value, "truth value")
    return (
        {"as_expr": _expression(value["as_expr"])}
        if "as_expr" in value
        else {"as_bool": value.get("as_bool") is True}
    )


def _real(value: Any) -> Json:
    value = _object(value, "real number")
    return (
        {"as_expr": _expression(value["as_expr"])}
        if "as_expr" in value
        else {"as_float": _plain(value.get("as_float", 0.0), (int, float))}
    )


def _expression(value: Any) -> Json:
    """A symbolic size. torch hands it to sympy.sympify, which evaluates Python: only known words pass."""
    value = _object(value, "expression")
    text = value.get("expr_str")
    if not isinstance(text, str) or "**" in text:
        unsafe(f"{quoted(text)} is not a symbolic size.")
    position = 0
    while position < len(text.rstrip()):
        token = _TOKEN.match(text, position)
        if token is None or (token[1] and token[1] not in _WORDS and not _SYMBOL.fullmatch(token[1])):
            unsafe(f"{quoted(text)} is not a symbolic size.")
        position = token.end()
    if len(text) > MAX_LETTERS or text.count("*") > MAX_FACTORS or _depth(text) > MAX_DEPTH:
        raise MethodError(
            "resource_limit",
            f"The symbolic size {quoted(text)} of the .pt2 file is more complicated than sizes are.",
            hint="Export the network with fixed sizes. " + SAVE_AGAIN,
        )
    hint = value.get("hint")
    if hint is None:
        return {"expr_str": text, "hint": None}
    ((kind, number),) = list(_object(hint, "hint").items())[:1] or [("", None)]
    if kind not in _SIMPLE or not isinstance(number, (int, float)):
        malformed("The hint of a symbolic size is not a number.")
    return {"expr_str": text, "hint": {kind: number}}


def _depth(text: str) -> int:
    """How deep its brackets go."""
    deepest = depth = 0
    for letter in text:
        depth += (letter == "(") - (letter == ")")
        deepest = max(deepest, depth)
    return deepest


def _node(node: Any) -> Json:
    node = _object(node, "node")
    name, target = node.get("name"), str(node.get("target"))
    label = str(name or target)[:100]
    if not is_allowed(target):
        raise MethodError(
            "unsupported_operator",
            f"The node {quoted(label)} calls {quoted(target)}, which is not among the operators we read.",
            layer=label,
            hint="Export the network in eval mode with torch.export.export, without custom operators or "
            "control flow.",
        )
    inputs = [_object(value, "argument") for value in _list(node.get("inputs"), "inputs")]
    return {
        "target": target,
        "inputs": [_input(value) for value in inputs],
        "outputs": [_argument(value) for value in _list(node.get("outputs"), "outputs")],
        "metadata": _metadata(node.get("metadata")),
        "is_hop_single_tensor_return": None,
        "name": None if name is None else _name(name),
    }


def _input(value: Json) -> Json:
    name = str(value.get("name") or "")
    if name and not re.fullmatch(r"[A-Za-z_]\w*", name, flags=re.ASCII):
        unsafe(f"{quoted(name)} is not the name of an argument.")
    kind = value.get("kind")
    return {
        "name": name,
        "arg": _argument(value.get("arg")),
        "kind": None if kind is None else _integer(kind),
    }


def _metadata(metadata: Any) -> Json:
    """Only the path of the module, which names layers; types and traces are dropped."""
    text = str((metadata or {}).get("nn_module_stack", "")) if isinstance(metadata, dict) else ""
    kept = []
    for index, item in enumerate(text.split(";")):
        parts = item.split(",")
        if len(parts) == 3 and re.fullmatch(r"[\w.@]{0,500}", parts[1], flags=re.ASCII):
            kept.append(f"level{index},{parts[1]},torch.nn.Module")
    return {"nn_module_stack": ";".join(kept)} if kept else {}


def _argument(value: Any) -> Json:
    value = _object(value, "argument")
    if len(value) != 1:
        malformed("An argument of its graph has no single kind.")
    ((kind, content),) = value.items()
    if kind in _SIMPLE:
        return {kind: _plain(content, _SIMPLE[kind])}
    if kind in _LISTS:
        return {kind: [_plain(item, _LISTS[kind]) for item in _list(content, kind)]}
    if kind in _ENUMS:
        return {kind: _integer(content)}
    if kind in _READERS:
        return {kind: _READERS[kind](content)}
    if kind in ("as_custom_obj", "as_graph", "as_operator"):
        unsafe(f"Its graph has an argument of the kind {kind}.")
    return malformed(f"Its graph has an argument of the kind {quoted(kind)}, which we do not read.")


def _plain(value: Any, kind: Any) -> Any:
    if isinstance(value, str) and value in ("Infinity", "-Infinity", "NaN"):
        return value  # how the schema writes these floats
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        malformed(f"{quoted(value)} stands where a plain value is expected.")
    return value


def _word(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[\w.,> -]{0,100}", value, flags=re.ASCII):
        unsafe(f"{quoted(value)} is not a plain option of an operator.")
    return value


def _tensor(value: Any) -> Json:
    return {"name": _name(_object(value, "tensor").get("name"))}


def _optional_tensor(value: Any) -> Json:
    value = _object(value, "optional tensor")
    return {"as_tensor": _tensor(value["as_tensor"])} if "as_tensor" in value else {"as_none": True}


def _symbol(value: Any) -> Json:
    value = _object(value, "symbol")
    if "as_name" in value:
        return {"as_name": _name(value["as_name"])}
    ((kind, content),) = list(value.items())[:1] or [("", None)]
    return {kind: _plain(content, _SIMPLE.get(kind, ()))}


def _each(read: Callable[[Any], Any]) -> Callable[[Any], list[Any]]:
    return lambda values: [read(value) for value in _list(values, "argument")]


_READERS: Final[dict[str, Callable[[Any], Any]]] = {
    "as_tensor": _tensor,
    "as_tensors": _each(_tensor),
    "as_optional_tensor": _optional_tensor,
    "as_optional_tensors": _each(_optional_tensor),
    "as_string": _word,
    "as_strings": _each(_word),
    "as_sym_int": _symbol,
    "as_sym_ints": _each(_symbol),
    "as_sym_float": _symbol,
    "as_sym_floats": _each(_symbol),
    "as_sym_bool": _symbol,
    "as_sym_bools": _each(_symbol),
    "as_device": lambda _: {"type": "cpu", "index": None},
}


def _signature(signature: Json) -> Json:
    return {
        "input_specs": [_input_spec(spec) for spec in _list(signature.get("input_specs"), "input_specs")],
        "output_specs": [_output_spec(spec) for spec in _list(signature.get("output_specs"), "output_specs")],
    }


def _input_spec(spec: Any) -> Json:
    spec = _object(spec, "input_spec")
    if len(spec) != 1:
        malformed("An input of its graph has no single kind.")
    ((kind, content),) = spec.items()
    content = _object(content, "input_spec")
    if kind == "user_input":
        argument = _argument(content.get("arg"))
        if "as_tensor" not in argument:
            malformed("It has an input that is no tensor; one batch of images is expected.")
        return {kind: {"arg": argument}}
    if kind == "parameter":
        return {
            kind: {"arg": _tensor(content.get("arg")), "parameter_name": _path(content.get("parameter_name"))}
        }
    if kind == "buffer":
        name, persistent = _path(content.get("buffer_name")), content.get("persistent") is True
        return {kind: {"arg": _tensor(content.get("arg")), "buffer_name": name, "persistent": persistent}}
    if kind == "tensor_constant":
        name = _path(content.get("tensor_constant_name"))
        return {kind: {"arg": _tensor(content.get("arg")), "tensor_constant_name": name}}
    if kind == "custom_obj":
        unsafe("Its graph takes a custom object, which is a pickle.")
    return malformed(f"Its graph has an input of the kind {quoted(kind)}; one batch of images is expected.")


def _output_spec(spec: Any) -> Json:
    spec = _object(spec, "output_spec")
    if set(spec) & {"buffer_mutation", "parameter_mutation", "user_input_mutation"}:
        raise MethodError(
            "malformed_model",
            "The network changes its own buffers when it runs: it was exported in training mode.",
            hint="Call model.eval() before torch.export.export.",
        )
    argument = _argument(_object(spec.get("user_output"), "output_spec").get("arg"))
    if "as_tensor" not in argument:
        malformed("It has an output that is no tensor.")
    return {"user_output": {"arg": argument}}


def _root_call(signature: Json) -> Json:
    """The calling convention, ours: one positional tensor in; one tensor, or a tuple of them, out."""
    inputs = sum("user_input" in spec for spec in signature["input_specs"])
    if inputs != 1:
        malformed(f"The network has {inputs} inputs; one batch of images is expected.")
    outputs = len(signature["output_specs"])
    out = pytree.tree_structure(0 if outputs == 1 else tuple(range(outputs)))
    (image,) = [
        spec["user_input"]["arg"]["as_tensor"]["name"]
        for spec in signature["input_specs"]
        if "user_input" in spec
    ]
    return {
        "fqn": "",
        "signature": {
            "inputs": [],
            "outputs": [],
            "in_spec": pytree.treespec_dumps(pytree.tree_structure(((0,), {}))),
            "out_spec": pytree.treespec_dumps(out),
            "forward_arg_names": [image],
        },
    }
