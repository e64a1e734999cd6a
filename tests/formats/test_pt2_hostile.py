""".pt2 archives made to harm: refused, and nothing in them is ever unpickled, evaluated or called.

Every payload here would create a file if it ran; each test looks for that file.
"""

import contextlib
import io
import json
import pickle
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from basisconv.errors import MethodError
from basisconv.formats import pt2_reader
from tests.formats.nets import edited, pt2_of, read_pt2, rezipped, small, small_pt2

CONFIG, GRAPH = "model_weights_config.json", "models/model.json"


class Bomb:
    """Unpickled, it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


@cache
def harmless() -> bytes:
    return small_pt2()


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    return tmp_path / "it-ran"


def refusal(data: bytes, trap: Path | None = None) -> MethodError:
    with pytest.raises(MethodError) as refused:
        read_pt2(data)
    assert trap is None or not trap.exists()
    return refused.value


def armed(trap: Path) -> bytes:
    """What torch.load(weights_only=False) would run."""
    buffer = io.BytesIO()
    torch.save(Bomb(trap), buffer)
    return buffer.getvalue()


def root(records: dict[str, bytes]) -> str:
    return next(iter(records)).split("/", 1)[0]


def test_the_bomb_goes_off_when_unpickled(trap: Path) -> None:
    """Or the tests below would prove nothing."""
    pickle.loads(pickle.dumps(Bomb(trap)))
    assert trap.exists()
    trap.unlink()
    torch.load(io.BytesIO(armed(trap)), weights_only=False)
    assert trap.exists()


def test_torchs_own_loader_would_run_it(trap: Path) -> None:
    data = rezipped(harmless(), lambda r: r.update({f"{root(r)}/data/sample_inputs/model.pt": armed(trap)}))
    with contextlib.suppress(Exception):  # what it makes of the rest is not the point
        torch.export.load(io.BytesIO(data))
    assert trap.exists()


def test_pickled_sample_inputs_are_thrown_away_unread(trap: Path) -> None:
    data = rezipped(harmless(), lambda r: r.update({f"{root(r)}/data/sample_inputs/model.pt": armed(trap)}))
    assert list(read_pt2(data).layers)
    assert not trap.exists()


def test_a_weight_flagged_as_a_pickle_is_refused_and_named(trap: Path) -> None:
    flagged = edited(harmless(), CONFIG, lambda c: c["config"]["stem.weight"].update(use_pickle=True))
    data = rezipped(flagged, lambda r: r.update({f"{root(r)}/data/weights/weight_0": armed(trap)}))
    refused = refusal(data, trap)
    assert (refused.code, refused.layer) == ("unsafe_serialization", "stem.weight")


@pytest.mark.parametrize("kind", ["custom_obj_0", "opaque_obj_0"])
def test_custom_objects_are_refused(kind: str, trap: Path) -> None:
    def add(records: dict[str, bytes]) -> None:
        folder = f"{root(records)}/data/constants/"
        entry = {"path_name": kind, "is_param": False, "use_pickle": True, "tensor_meta": None}
        records[folder + kind] = pickle.dumps(Bomb(trap))
        records[f"{folder}model_constants_config.json"] = json.dumps({"config": {"thing": entry}}).encode()

    assert refusal(rezipped(harmless(), add), trap).code == "unsafe_serialization"


@pytest.mark.parametrize(
    "name", ["data/weights/model.pt", "data/constants/model.pt", "data.pkl", "extra/x.pkl"]
)
def test_older_pickled_layouts_are_refused(name: str, trap: Path) -> None:
    data = rezipped(harmless(), lambda r: r.update({f"{root(r)}/{name}": armed(trap)}))
    assert refusal(data, trap).code == "unsafe_serialization"


def test_the_layout_of_torch_2_7_is_refused(trap: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("version", "8.9")
        archive.writestr("serialized_exported_program.json", "{}")
        archive.writestr("serialized_state_dict.pt", armed(trap))
    assert refusal(buffer.getvalue(), trap).code == "unsafe_serialization"


def test_compiled_code_is_refused() -> None:
    data = rezipped(harmless(), lambda r: r.update({f"{root(r)}/data/aotinductor/model/m.so": b"\x7fELF"}))
    assert refusal(data).code == "unsafe_serialization"


def first_node(change: dict[str, Any]) -> Callable[[Any], None]:
    return lambda program: program["graph_module"]["graph"]["nodes"][0].update(change)


@pytest.mark.parametrize(
    "target",
    [
        "torch.hub.load",
        "torch.load",
        "torch.ops.aten.from_file.default",
        "torch.ops.mylib.op.default",
        "_operator.attrgetter",
        "math.floor",
        "torch.ops.aten.bernoulli.default",
        "#ext:op",
        "torch.ops.higher_order.cond",
    ],
)
def test_functions_that_are_not_on_the_list_are_refused_by_name(target: str) -> None:
    refused = refusal(edited(harmless(), GRAPH, first_node({"target": target})))
    assert refused.code == "unsupported_operator"
    assert target in refused.detail


def test_a_symbolic_size_that_is_python_code_is_refused(trap: Path) -> None:
    code = f"__import__('pathlib').Path('{trap}').touch()"

    def poison(program: Any) -> None:
        sizes = program["graph_module"]["graph"]["tensor_values"]["x"]["sizes"]
        sizes[0] = {"as_expr": {"expr_str": code, "hint": {"as_int": 2}}}

    assert refusal(edited(harmless(), GRAPH, poison), trap).code == "unsafe_serialization"


def test_a_node_name_that_is_python_code_is_refused(trap: Path) -> None:
    name = f"a = __import__('pathlib').Path('{trap}').touch() #"
    assert refusal(edited(harmless(), GRAPH, first_node({"name": name})), trap).code == "unsafe_serialization"


def test_guards_that_are_python_code_are_dropped(trap: Path) -> None:
    guard = f"__import__('pathlib').Path('{trap}').touch() or True"
    data = edited(harmless(), GRAPH, lambda program: program.update(guards_code=[guard]))
    network = read_pt2(data)
    network.source.module()(torch.zeros(2, 3, 12, 12))  # type: ignore[union-attr]
    assert not trap.exists()


def test_tree_types_of_the_sender_are_replaced() -> None:
    spec = '[1, {"type": "os.system", "context": "[]", "children_spec": []}]'

    def poison(program: Any) -> None:
        program["graph_module"]["module_call_graph"][0]["signature"].update(in_spec=spec, out_spec=spec)

    assert list(read_pt2(edited(harmless(), GRAPH, poison)).layers)


@pytest.mark.parametrize("name", ["../../outside", "m/../../outside", "/etc/outside", "m/a\\..\\b", "m//x"])
def test_record_names_that_leave_the_archive_are_refused(name: str) -> None:
    data = rezipped(harmless(), lambda r: r.update({name: b"x"}))
    assert refusal(data).code == "malformed_model"


def test_records_that_claim_more_than_the_file_holds_are_refused() -> None:
    """A zip bomb by declared size: the directory promises 1 GB."""
    data = bytearray(harmless())
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entry = archive.start_dir
    data[entry + 20 : entry + 28] = (10**9).to_bytes(4, "little") * 2
    assert refusal(bytes(data)).code == "malformed_model"


def test_compressed_records_are_refused() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("m/archive_format", "pt2")
        archive.writestr("m/data/weights/weight_0", b"\0" * 10_000_000)
    assert refusal(buffer.getvalue()).code == "malformed_model"


def test_a_tensor_that_reaches_past_its_bytes_is_refused_and_named() -> None:
    def stretch(config: Any) -> None:
        config["config"]["fc1.weight"]["tensor_meta"]["storage_offset"] = {"as_int": 1}

    refused = refusal(edited(harmless(), CONFIG, stretch))
    assert (refused.code, refused.layer) == ("malformed_model", "fc1.weight")


def test_a_tensor_that_repeats_its_bytes_a_billion_times_is_refused() -> None:
    def repeat(config: Any) -> None:
        meta = config["config"]["fc1.bias"]["tensor_meta"]
        meta.update(sizes=[{"as_int": 10**9}], strides=[{"as_int": 0}])

    assert refusal(edited(harmless(), CONFIG, repeat)).code == "malformed_model"


def test_weights_that_are_no_numbers_are_named() -> None:
    network = small()
    with torch.no_grad():
        network.down.weight[0, 0, 0, 0] = float("nan")
    refused = refusal(pt2_of(network))
    assert (refused.code, refused.layer) == ("malformed_model", "down.weight")


@pytest.mark.parametrize("kept", [0.3, 0.9, 0.999])
def test_a_truncated_archive_is_malformed(kept: float) -> None:
    data = harmless()
    assert refusal(data[: int(kept * len(data))]).code == "malformed_model"


def test_a_graph_that_makes_no_sense_is_malformed() -> None:
    def tear(program: Any) -> None:
        del program["graph_module"]["graph"]["nodes"][3]

    assert refusal(edited(harmless(), GRAPH, tear)).code == "malformed_model"


def test_torchscript_is_named() -> None:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.trace(torch.nn.Conv2d(3, 4, 3).eval(), torch.zeros(1, 3, 8, 8)), buffer)
    buffer.seek(0)
    with pytest.raises(MethodError) as refused:
        pt2_reader.canonicalise(buffer, io.BytesIO())
    assert refused.value.code in ("unsupported_format", "unsafe_serialization")
