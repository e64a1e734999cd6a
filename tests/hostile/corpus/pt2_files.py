"""torch.export archives that carry pickles, code, or numbers that lie."""

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from typing import Any

import torch

from tests.formats.nets import edited, pt2_of, rezipped, small, small_pt2
from tests.hostile.corpus import READY, Traps, add
from tests.hostile.corpus.payloads import Bomb, pickled

UNSAFE, MALFORMED, UNKNOWN = "unsafe_serialization", "malformed_model", "unsupported_operator"
CONFIG, GRAPH = "model_weights_config.json", "models/model.json"
Records = dict[str, bytes]


def root(records: Records) -> str:
    return next(iter(records)).split("/", 1)[0]


def armed(traps: Traps) -> bytes:
    """What torch.load(weights_only=False) would run."""
    buffer = io.BytesIO()
    torch.save(Bomb(traps), buffer)
    return buffer.getvalue()


def archive(name: str, change: Callable[[Records, Traps], object], codes: str, **more: Any) -> None:
    """A case: the small network's archive after `change`."""

    def make(traps: Traps) -> bytes:
        return rezipped(small_pt2(), lambda records: change(records, traps))

    add("pt2", name, make, codes, filename="model.pt2", **more)


def document(name: str, record: str, change: Callable[[Any, Traps], object], codes: str, **more: Any) -> None:
    """A case: one JSON record of the archive after `change`."""

    def make(traps: Traps) -> bytes:
        return edited(small_pt2(), record, lambda content: change(content, traps))

    add("pt2", name, make, codes, filename="model.pt2", **more)


def put(path: str, content: Callable[[Traps], bytes] = armed) -> Callable[[Records, Traps], object]:
    return lambda records, traps: records.update({f"{root(records)}/{path}": content(traps)})


# Pickles.


def flagged(traps: Traps) -> bytes:
    said = edited(small_pt2(), CONFIG, lambda c: c["config"]["stem.weight"].update(use_pickle=True))
    return rezipped(said, lambda records: put("data/weights/weight_0")(records, traps))


def custom(kind: str) -> Callable[[Records, Traps], object]:
    def change(records: Records, traps: Traps) -> None:
        folder = f"{root(records)}/data/constants/"
        entry = {"path_name": kind, "is_param": False, "use_pickle": True, "tensor_meta": None}
        records[folder + kind] = pickle.dumps(Bomb(traps))
        records[f"{folder}model_constants_config.json"] = json.dumps({"config": {"thing": entry}}).encode()

    return change


def old_layout(traps: Traps) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as zipped:
        zipped.writestr("version", "8.9")
        zipped.writestr("serialized_exported_program.json", "{}")
        for name in ("state_dict", "constants", "example_inputs"):
            zipped.writestr(f"serialized_{name}.pt", armed(traps))
    return buffer.getvalue()


add("pt2", "a weight flagged as a pickle", flagged, UNSAFE, filename="m.pt2")
archive("sample inputs that are a pickle", put("data/sample_inputs/model.pt"), READY)
archive("a custom object", custom("custom_obj_0"), UNSAFE)
archive("an opaque object", custom("opaque_obj_0"), UNSAFE)
add("pt2", "the layout of torch 2.7", old_layout, UNSAFE, filename="m.pt2")
archive("all weights in one pickle", put("data/weights/model.pt"), UNSAFE)
archive("all constants in one pickle", put("data/constants/model.pt"), UNSAFE)
archive("a data.pkl beside the rest", put("data.pkl", lambda t: pickled(t, 2)), UNSAFE)
archive("a pickle among the extra files", put("extra/x.pkl", lambda t: pickled(t, 2)), UNSAFE)
archive("compiled code", put("data/aotinductor/model/m.so", lambda _: b"\x7fELF" + bytes(99)), UNSAFE)
archive(
    "a TorchScript's code",
    put("code/__torch__.py", lambda t: t.code.encode()),
    "unsupported_format unsafe_serialization",
)
archive("a pickle in the place of the graph", put("models/model.json", lambda t: pickled(t, 0)), MALFORMED)
archive("a pickle in the place of a weight", put("data/weights/weight_0"), f"{MALFORMED} {READY}")

# Words that torch's own reader evaluates, imports or prints into source.


def first_node(**change: Any) -> Callable[[Any, Traps], object]:
    return lambda program, _: program["graph_module"]["graph"]["nodes"][0].update(change)


def size_is(expression: str | Callable[[Traps], str]) -> Callable[[Any, Traps], object]:
    def change(program: Any, traps: Traps) -> None:
        text = expression if isinstance(expression, str) else expression(traps)
        sizes = program["graph_module"]["graph"]["tensor_values"]["x"]["sizes"]
        sizes[0] = {"as_expr": {"expr_str": text, "hint": {"as_int": 2}}}

    return change


TARGETS = (
    "torch.hub.load",
    "torch.load",
    "torch.ops.aten.from_file.default",
    "_operator.attrgetter",
    "builtins.exec",
)
for _target in (
    *TARGETS,
    "torch.ops.higher_order.while_loop",
    "torch._C._jit_init",
    "os.system",
    "torch.\u1e6fensor",
):
    document(
        f"a call of {_target.encode('ascii', 'backslashreplace').decode()}",
        GRAPH,
        first_node(target=_target),
        UNKNOWN,
    )
document("a size that is Python", GRAPH, size_is(lambda t: t.expression), UNSAFE)
document("a size that reaches for attributes", GRAPH, size_is("Integer.__class__.__mro__"), UNSAFE)
document("a size in full-width letters", GRAPH, size_is("\uff45\uff58\uff45\uff43('1')"), UNSAFE)
document(
    "a node's name that is Python", GRAPH, lambda p, t: first_node(name=f"a = {t.expression} #")(p, t), UNSAFE
)
document("guards that are Python", GRAPH, lambda p, t: p.update(guards_code=[t.expression]), READY)
document(
    "an argument's name that is Python",
    GRAPH,
    lambda p, t: p["graph_module"]["graph"]["nodes"][0]["inputs"][0].update(name=t.expression),
    UNSAFE,
)
document(
    "a stack of modules that is Python",
    GRAPH,
    lambda p, t: first_node(metadata={"nn_module_stack": t.expression, "stack_trace": t.code})(p, t),
    f"{READY} {UNSAFE}",
)


def tree_types(program: Any, traps: Traps) -> None:
    spec = json.dumps([1, {"type": "os.system", "context": json.dumps(traps.code), "children_spec": []}])
    program["graph_module"]["module_call_graph"][0]["signature"].update(in_spec=spec, out_spec=spec)


document("containers of a type that it names", GRAPH, tree_types, READY)
document(
    "a parameter's path into torch",
    GRAPH,
    lambda p, _: rename_parameter(p, "__class__.__init__"),
    f"{MALFORMED} {UNSAFE}",
)
document(
    "a parameter's path of 400 parts",
    GRAPH,
    lambda p, _: rename_parameter(p, ".".join("a" * 200)),
    f"{MALFORMED} {UNSAFE}",
)


def rename_parameter(program: Any, path: str) -> None:
    for spec in program["graph_module"]["signature"]["input_specs"]:
        if "parameter" in spec:
            spec["parameter"]["parameter_name"] = path
            return


# JSON.


def record(text: bytes) -> Callable[[Records, Traps], object]:
    return put("models/model.json", lambda _: text)


archive("JSON nested 100,000 deep", record(b"[" * 100_000), MALFORMED)
archive("objects nested 100,000 deep", record(b'{"graph_module":' * 100_000), MALFORMED)
archive("JSON that is no object", record(b"[]"), MALFORMED)
archive("JSON that is cut", record(b'{"graph_module": {"graph"'), MALFORMED)
archive("JSON in UTF-16", record('{"a": 1}'.encode("utf-16")), MALFORMED)
archive("a number of a million digits", record(b'{"schema_version": ' + b"9" * 1_000_000 + b"}"), MALFORMED)
archive(
    "a name given 100,000 times", record(b"{" + b",".join([b'"graph_module": 1'] * 100_000) + b"}"), MALFORMED
)
archive("a list of ten million", record(b'{"graph_module": [' + b"0," * 10_000_000 + b"0]}"), MALFORMED)


def argument_nested(program: Any, _: Traps) -> None:
    inner: Any = {"as_none": True}
    for _level in range(300):
        inner = {"as_optional_tensors": [inner]}
    program["graph_module"]["graph"]["nodes"][0]["inputs"][0]["arg"] = inner


def wrong_kinds(value: Any) -> Callable[[Any, Traps], object]:
    def change(program: Any, _: Traps) -> None:
        for name in list(program["graph_module"]["graph"]):
            program["graph_module"]["graph"][name] = value

    return change


document("arguments nested 300 deep", GRAPH, argument_nested, f"{MALFORMED} {UNSAFE}")
for _value in (None, 0, "x", [], {}, [[]], [None], {"a": None}):
    document(f"a graph made of {json.dumps(_value)}", GRAPH, wrong_kinds(_value), f"{MALFORMED} {UNSAFE}")
    document(
        f"a configuration of {json.dumps(_value)}",
        CONFIG,
        lambda c, _, v=_value: c["config"].update({"stem.weight": v}),
        f"{MALFORMED} {UNSAFE}",
    )
document(
    "a hint that is empty",
    GRAPH,
    lambda p, _: p["graph_module"]["graph"]["tensor_values"]["x"]["sizes"].__setitem__(
        0, {"as_expr": {"expr_str": "s0", "hint": {}}}
    ),
    f"{MALFORMED} {UNSAFE}",
)
document(
    "a size range beyond 64 bits",
    GRAPH,
    lambda p, _: p["range_constraints"].update(s0={"min_val": -(1 << 80), "max_val": 1 << 80}),
    f"{MALFORMED} {READY}",
)
document(
    "a size range that nothing fits",
    GRAPH,
    lambda p, _: [r.update(min_val=9, max_val=2) for r in p["range_constraints"].values()],
    f"{MALFORMED} {READY}",
)
document("another schema", GRAPH, lambda p, _: p["schema_version"].update(major=99), MALFORMED)
document(
    "an operator set to come",
    GRAPH,
    lambda p, _: p["opset_version"].update(aten=10**6),
    f"{MALFORMED} {READY}",
)

# Tensors that lie.


def meta(name: str = "fc1.weight", **change: Any) -> Callable[[Any, Traps], object]:
    def edit(config: Any, _: Traps) -> None:
        config["config"][name]["tensor_meta"].update(change)

    return edit


def ints(*values: int) -> list[dict[str, int]]:
    return [{"as_int": value} for value in values]


document("weights that begin behind their bytes", CONFIG, meta(storage_offset={"as_int": 1}), MALFORMED)
document("weights that begin before their bytes", CONFIG, meta(storage_offset={"as_int": -1}), MALFORMED)
document(
    "weights of 2^62 by 2^62",
    CONFIG,
    meta(sizes=ints(1 << 62, 1 << 62), strides=ints(1, 1)),
    MALFORMED,
)
document(
    "weights that repeat one number a billion times",
    CONFIG,
    meta("fc1.bias", sizes=ints(10**9), strides=ints(0)),
    MALFORMED,
)
document("weights of an unknown type", CONFIG, meta(dtype=99), MALFORMED)
document("weights of no size", CONFIG, meta(sizes=ints(0, 12)), MALFORMED)
document(
    "weights of 10,000 axes", CONFIG, meta(sizes=ints(*[1] * 10_000), strides=ints(*[1] * 10_000)), MALFORMED
)
document("weights on another device", CONFIG, meta(device={"type": "cuda", "index": 7}), READY)
document("weights in a sparse layout", CONFIG, meta(layout=1), MALFORMED)
document(
    "weights stored outside the archive",
    CONFIG,
    lambda c, _: c["config"]["fc1.weight"].update(path_name="../../../etc/passwd"),
    UNSAFE,
)


def not_a_number(_: Traps) -> bytes:
    network = small()
    with torch.no_grad():
        network.down.weight[0, 0, 0, 0] = float("nan")
    return pt2_of(network)


add("pt2", "one weight that is NaN", not_a_number, MALFORMED, filename="m.pt2")

# The zip around it.


def raw(name: str, change: Callable[[bytes], bytes], codes: str = MALFORMED, **more: Any) -> None:
    add("pt2", name, lambda _: change(small_pt2()), codes, filename="model.pt2", **more)


def claims(size: int) -> Callable[[bytes], bytes]:
    """The first record's sizes in the directory."""

    def change(data: bytes) -> bytes:
        altered = bytearray(data)
        with zipfile.ZipFile(io.BytesIO(data)) as zipped:
            entry = zipped.start_dir
        altered[entry + 20 : entry + 28] = size.to_bytes(4, "little") * 2
        return bytes(altered)

    return change


def deflated(data: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
        new.writestr(f"{old.namelist()[0].split('/')[0]}/extra/zeros", bytes(300_000_000))
    return buffer.getvalue()


def overlapping(data: bytes) -> bytes:
    """Ten thousand names for one record's bytes."""
    with zipfile.ZipFile(io.BytesIO(data)) as old:
        start, tail = old.start_dir, data[old.start_dir :]
        (count,) = (len(old.infolist()),)
    end = tail.rindex(b"PK\x05\x06")
    first = tail[: tail.index(b"PK\x01\x02", 4)]
    directory = tail[:end] + first * 10_000
    closing = bytearray(tail[end:])
    total = (count + 10_000).to_bytes(2, "little")
    closing[8:12] = total * 2
    closing[12:16] = len(directory).to_bytes(4, "little")
    return data[:start] + directory + bytes(closing)


raw("cut in the middle", lambda data: data[: len(data) // 2])
raw("cut before its last byte", lambda data: data[:-1])
raw("a record that claims 4 GB", claims(0xFFFF_FFFE))
raw("records compressed, among them 300 MB of zeros", deflated)
raw("ten thousand names for the same bytes", overlapping)
raw("another zip behind it", lambda data: data + rezipped(data, lambda r: None), f"{MALFORMED} {UNSAFE}")
raw(
    "a program in front of it", lambda data: b"\x7fELF" + bytes(100) + data, f"{MALFORMED} unsupported_format"
)
raw("a comment of 60,000 letters", lambda data: data[:-2] + (60_000).to_bytes(2, "little") + b"c" * 60_000)
raw("noise over its middle", lambda data: data[:3000] + bytes(range(256)) * 8 + data[5048:])
for _name in ("../../outside", "/etc/outside", "m/a\\..\\b", "m//x", "m/./x", "C:/x", "m/a\0b"):
    archive(
        f"a record named {_name!r}",
        lambda records, _, n=_name: records.update({n: b"x"}),
        f"{MALFORMED} {READY}" if "\0" in _name else MALFORMED,
    )
archive(
    "a hundred thousand records",
    lambda records, _: records.update({f"{root(records)}/extra/{n}": b"" for n in range(100_001)}),
    MALFORMED,
)
archive(
    "two networks in one",
    lambda records, _: records.update({f"{root(records)}/models/other.json": b"{}"}),
    MALFORMED,
)
archive(
    "no weights at all",
    lambda records, _: [records.pop(name) for name in list(records) if "data/weights" in name],
    MALFORMED,
)
