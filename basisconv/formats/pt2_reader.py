""".pt2 -> Network, and a stranger's .pt2 -> a clean one."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

import torch
from torch import fx
from torch.export import ExportedProgram

from basisconv.errors import MethodError
from basisconv.formats import pt2_archive, pt2_import, pt2_rewriting, pt2_schema
from basisconv.formats.budget import Budget, foresee
from basisconv.formats.names import Names, quoted, shortened
from basisconv.formats.network import Network
from basisconv.formats.onnx_checks import MAX_SIDE
from basisconv.formats.pt2_archive import Archive, malformed
from basisconv.formats.specialise import frees_batch
from basisconv.formats.tracing import trace

_USUAL_SIDE: Final = 224  # where height or width is open and the program has no hint


def canonicalise(source: Path | IO[bytes] | Archive, target: IO[bytes]) -> None:
    """Write a clean archive of a stranger's: checked tensors, a rebuilt graph, a sample input of our own.

    source: the file, or what `pt2_archive.read` made of it.

    Nothing of the stranger's is unpickled or evaluated. Raises MethodError: malformed_model,
    unsafe_serialization, unsupported_format, unsupported_operator, resource_limit.
    """
    if isinstance(source, Path):
        with source.open("rb") as file:
            archive = pt2_archive.read(file)
    else:
        archive = source if isinstance(source, Archive) else pt2_archive.read(source)
    pt2_rewriting.refuse_infinite(archive)
    archive.program = pt2_schema.rebuild(archive.program)
    pt2_rewriting.write(archive, _sample(archive.program), target)


def load(
    path: Path | IO[bytes],
    input_shape: tuple[int, int, int] | None = None,
    budget: Budget | None = None,
) -> Network:
    """Read a canonical .pt2 (one that `canonicalise` or this project wrote).

    input_shape: (C, H, W) to use, where the file leaves sizes open. budget: what one call of the network, at
    its own batch size or with one image, may cost.
    """
    program = load_program(path)
    with _building():
        image = _image(program)
        sizes = list(image.meta["val"].shape)
        batch = sizes[0] if isinstance(sizes[0], int) else None
        shape = _shape(sizes[1:], input_shape, image.name)
        imported = pt2_import.convert(program, batch)
    _first_run(imported, (batch or 1, *shape), budget or Budget())
    module_batch = batch
    if batch is not None:
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(3 * batch, *shape, generator=generator)
        module_batch = None if frees_batch(imported.module, images, batch) else batch
    outputs = next(node for node in program.graph.nodes if node.op == "output").args[0]
    return Network(
        module=imported.module,
        input_name=image.name,
        input_shape=shape,
        batch=batch,
        module_batch=module_batch,
        output_names=_output_names(program, len(outputs)),
        layers=imported.layers,
        format="pt2",
        source=program,
        values=imported.values,
    )


@contextmanager
def _building() -> Iterator[None]:
    """torch built a program of it, but its parts may still not fit each other."""
    try:
        yield
    except (MethodError, MemoryError):
        raise
    except Exception as error:
        malformed(f"Its graph makes no network: {shortened(' '.join(str(error).split()), 300)}.")


def _first_run(imported: pt2_import.Imported, shape: tuple[int, ...], budget: Budget) -> None:
    """Whether it runs within the budget. Raises resource_limit or malformed_model with the node."""
    nodes = imported.module.graph.nodes
    own = {node: imported.values.get(node.name, node.name) for node in nodes}
    names = own | {node: str(node.target) for node in nodes if node.op == "call_module"}
    if not foresee(imported.module, shape, names, budget):
        images = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        trace(imported.module, images, names, budget)


def _output_names(program: ExportedProgram, count: int) -> tuple[str, ...]:
    """Names for an ONNX export; a .pt2's own outputs have none but those of the nodes that compute them."""
    names = Names({node.name for node in program.graph.nodes if node.op != "output"})
    return (
        (names.unique("output"),) if count == 1 else tuple(names.unique(f"output_{i}") for i in range(count))
    )


def load_program(path: Path | IO[bytes]) -> ExportedProgram:
    """torch.export.load on an archive whose parts we wrote."""
    buffer = io.BytesIO(path.read_bytes() if isinstance(path, Path) else path.read())
    try:
        program = torch.export.load(buffer)
    except MethodError:
        raise
    except Exception as error:
        malformed(f"torch cannot build its graph: {shortened(' '.join(str(error).split()), 300)}.")
    _check_outputs(program)
    return program


def _check_outputs(program: ExportedProgram) -> None:
    outputs = next(node for node in program.graph.nodes if node.op == "output").args[0]
    if not outputs or not all(isinstance(node, fx.Node) for node in outputs):
        malformed("It has an output that is no tensor.")


def _image(program: ExportedProgram) -> fx.Node:
    (name,) = program.graph_signature.user_inputs
    node = next(node for node in program.graph.nodes if node.op == "placeholder" and node.name == name)
    value = node.meta["val"]
    if value.dtype != torch.float32 or value.dim() != 4:
        malformed(
            f"Its input {quoted(name)} is {str(value.dtype).removeprefix('torch.')} with {value.dim()} axes; "
            "a batch of images is float32 with 4."
        )
    return node


def _shape(
    sizes: list[int | torch.SymInt], wanted: tuple[int, int, int] | None, name: str
) -> tuple[int, int, int]:
    said = [size if isinstance(size, int) else None for size in sizes]
    if wanted and any(own is not None and own != asked for own, asked in zip(said, wanted, strict=True)):
        raise MethodError(
            "validation_failed",
            f"input.shape {list(wanted)} does not fit the file, whose input {quoted(name)} takes "
            f"{[size or 'any' for size in said]} (channels, height, width).",
        )
    if wanted:
        return wanted
    channels, height, width = (
        size if isinstance(size, int) else (size.node.hint or _USUAL_SIDE) for size in sizes
    )
    if not all(0 < side <= MAX_SIDE for side in (channels, height, width)):
        malformed(f"Its input {quoted(name)} has the impossible shape {[channels, height, width]}.")
    return (channels, height, width)


def _sample(program: pt2_schema.Json) -> torch.Tensor:
    """Zeros of the declared input's shape; 2 or the hint where a size is open."""
    graph, signature = program["graph_module"]["graph"], program["graph_module"]["signature"]
    (name,) = [
        s["user_input"]["arg"]["as_tensor"]["name"] for s in signature["input_specs"] if "user_input" in s
    ]
    meta = graph["tensor_values"].get(name)
    if meta is None:
        malformed(f"Its input {quoted(name)} has no shape.")
    sizes = [_declared(size) for size in meta["sizes"]]
    if len(sizes) != 4 or not all(0 < size <= MAX_SIDE for size in sizes):
        malformed(
            f"Its input {quoted(name)} has the shape {sizes}; "
            f"a batch of images has 4 sizes from 1 to {MAX_SIDE:,}."
        )
    return torch.zeros(()).expand(sizes)  # stored as one number


def _declared(size: pt2_schema.Json) -> int:
    if "as_int" in size:
        return int(size["as_int"])
    hint = (size["as_expr"].get("hint") or {}).get("as_int")
    return int(hint) if hint else 2
