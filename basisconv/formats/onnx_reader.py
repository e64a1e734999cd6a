"""ONNX -> Network: checks, import by onnx2fx, real layers, sizes fixed, batch freed where it can be."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from onnx import ModelProto, TensorProto, ValueInfoProto
from torch import Tensor, fx, nn

from basisconv.cost import LAYERS
from basisconv.errors import MethodError
from basisconv.formats import onnx_layers, specialise
from basisconv.formats.attributes import attribute
from basisconv.formats.budget import Budget, foresee
from basisconv.formats.names import Names, quoted
from basisconv.formats.network import Layout, Network
from basisconv.formats.onnx_checks import MAX_SIDE, parse
from basisconv.formats.onnx_import import Raw, convert
from basisconv.formats.tracing import Trace, trace

# Tried in this order where a file leaves height and width open.
USUAL_SIZES = ((224, 224), (32, 32), (48, 192), (256, 256), (320, 320), (640, 640), (28, 28), (299, 299))
_SHOWN = 5  # names in a sentence
_CHANNELS = (1, 2, 3, 4)  # what an image's channel axis holds, when a file does not say its layout


@dataclass(frozen=True)
class Signature:
    """The image input as the file declares it; None where it is open."""

    name: str
    batch: int | None
    channels: int
    height: int | None
    width: int | None
    layout: Layout


def load(
    data: bytes | Path | ModelProto,
    input_shape: tuple[int, int, int] | None = None,
    layout: Layout | None = None,
    budget: Budget | None = None,
) -> Network:
    """Read a single-file ONNX network.

    data: the file, or what `parse` made of it. input_shape: (C, H, W) to use, where the file leaves sizes
    open. layout: of the file's image input; left out, it is told from where the channels are. budget: what
    one call of the network, at its own batch size or with one image, may cost.
    Raises MethodError with the codes of the REST contract.
    """
    if isinstance(data, Path):
        data = data.read_bytes()
    model = parse(data) if isinstance(data, bytes) else data
    signature = read_signature(model, layout, input_shape)
    raw = convert(model)
    if signature.layout == "NHWC":
        _take_nchw(raw)
    shape, batches, runs = _first_runs(raw, signature, input_shape, budget or Budget())
    names = Names({name for name, _ in raw.module.named_buffers()})
    layers = onnx_layers.extract(raw, runs[0], names, fixed_size=signature.height is not None)
    baked = len(batches) == 1
    specialise.fix_sizes(raw.module.graph, runs, baked)
    module, tensors = _assemble(raw, layers, names)
    frees = baked and specialise.frees_batch(module, _images(3 * batches[0], shape), batches[0])
    return Network(
        module=module,
        input_name=signature.name,
        input_shape=shape,
        batch=batches[0] if baked else None,
        module_batch=None if frees or not baked else batches[0],
        output_names=tuple(output.name for output in model.graph.output),
        layers=_public(layers),
        format="onnx",
        source=model,
        layout=signature.layout,
        opset=max((e.version for e in model.opset_import if e.domain in ("", "ai.onnx")), default=1),
        nodes=layers.nodes,
        tensors=tensors,
        values={node.name: name for name, node in _alive(raw).items()},
    )


def read_signature(
    model: ModelProto, layout: Layout | None = None, input_shape: tuple[int, int, int] | None = None
) -> Signature:
    """The one image input. Raises malformed_model for a network that does not take one batch of images."""
    stored = {tensor.name for tensor in model.graph.initializer}
    inputs = [item for item in model.graph.input if item.name not in stored]
    if len(inputs) != 1:
        names = ", ".join(quoted(item.name) for item in inputs[:_SHOWN]) or "none"
        more = f" and {len(inputs) - _SHOWN:,} more" if len(inputs) > _SHOWN else ""
        raise MethodError(
            "malformed_model",
            f"The network has {len(inputs):,} inputs ({names}{more}); one batch of images is expected.",
            hint="Export the part of it that takes images.",
        )
    sizes = _sizes(inputs[0])
    return _signature(inputs[0].name, sizes, layout or _guess_layout(sizes), input_shape)


def _sizes(item: ValueInfoProto) -> list[int | None]:
    kind = item.type.tensor_type
    if kind.elem_type != TensorProto.FLOAT:
        said = TensorProto.DataType.Name(kind.elem_type) if kind.elem_type else "no tensor"
        raise MethodError(
            "malformed_model",
            f"The input {quoted(item.name)} is {said}; float32 images are expected.",
            hint="Export the network with a float32 input; scaling and normalisation are told in `input`.",
        )
    sizes = [dim.dim_value if dim.HasField("dim_value") else None for dim in kind.shape.dim]
    if len(sizes) != 4:
        raise MethodError(
            "malformed_model",
            f"The input {quoted(item.name)} has {len(sizes):,} axes; a batch of images has 4.",
            hint="Export the network with an input of batch, channels, height and width.",
        )
    # Paddle writes -1 for an open size.
    sizes = [None if size is not None and size < 0 else size for size in sizes]
    if any(size == 0 or (size or 1) > MAX_SIDE for size in sizes):
        shown = tuple("any" if size is None else size for size in sizes)
        raise MethodError(
            "malformed_model",
            f"The input {quoted(item.name)} has the shape {shown}; "
            f"sizes from 1 to {MAX_SIDE:,} are possible.",
            hint="Export the network for smaller images, or with open sizes.",
        )
    return sizes


def _guess_layout(sizes: list[int | None]) -> Layout:
    return "NHWC" if sizes[3] in _CHANNELS and sizes[1] not in _CHANNELS else "NCHW"


def _signature(
    name: str, sizes: list[int | None], layout: Layout, wanted: tuple[int, int, int] | None
) -> Signature:
    batch, *rest = sizes
    channels, height, width = rest if layout == "NCHW" else (rest[2], rest[0], rest[1])
    said = (channels, height, width)
    if wanted and any(own is not None and own != asked for own, asked in zip(said, wanted, strict=True)):
        raise MethodError(
            "validation_failed",
            f"input.shape {list(wanted)} does not fit the file, whose input {quoted(name)} takes "
            f"{[size or 'any' for size in said]} (channels, height, width).",
        )
    channels = channels or (wanted[0] if wanted else None)
    if channels is None:
        raise MethodError(
            "validation_failed",
            f"The file leaves open how many channels its input {quoted(name)} has.",
            hint='Say it when you upload: input {"shape": [3, 224, 224]}.',
        )
    return Signature(name, batch, channels, height, width, layout)


def _first_runs(
    raw: Raw, signature: Signature, wanted: tuple[int, int, int] | None, budget: Budget
) -> tuple[tuple[int, int, int], tuple[int, ...], list[Trace]]:
    """An image size that runs, the batch sizes tried (one when it is baked in), and their runs."""
    sizes = [wanted[1:]] if wanted else _candidates(signature)
    choices = [(signature.batch,)] if signature.batch else [(2, 3), (1,)]
    own = signature.batch or 1
    first_error: MethodError | None = None
    for height, width in sizes:
        shape = (signature.channels, height, width)
        if foresee(raw.module, (own, *shape), raw.names, budget):
            budget = Budget()  # looking at every operator again would take longer than computing it
        for batches in choices:
            try:
                runs = [
                    trace(raw.module, _images(batch, shape), raw.names, budget.times(batch / own))
                    for batch in batches
                ]
            except MethodError as error:
                if error.code == "resource_limit":
                    raise
                first_error = first_error or error
            else:
                return shape, batches, runs
    assert first_error is not None
    raise first_error


def _candidates(signature: Signature) -> list[tuple[int, int]]:
    seen = dict.fromkeys(
        (signature.height or height, signature.width or width) for height, width in USUAL_SIZES
    )
    return list(seen)


def _images(batch: int, shape: tuple[int, int, int]) -> Tensor:
    return torch.randn(batch, *shape, generator=torch.Generator().manual_seed(0))


def _take_nchw(raw: Raw) -> None:
    """Let an NHWC network take N×C×H×W, as every Network does."""
    graph = raw.module.graph
    image = next(node for node in graph.nodes if node.op == "placeholder")
    users = list(image.users)
    with graph.inserting_after(image):
        turned = graph.call_function(torch.permute, (image, (0, 2, 3, 1)))
    for user in users:
        user.replace_input_with(image, turned)


def _assemble(raw: Raw, layers: onnx_layers.Layers, names: Names) -> tuple[fx.GraphModule, dict[str, str]]:
    """A graph module of the layers and of the stored values that are still read."""
    root, tensors = nn.Module(), dict[str, str]()
    for path, layer in layers.modules.items():
        root.add_module(path, layer)
    # The first of a value's names is the stored one, later ones are of Identity nodes.
    value_of = {node: name for name, node in reversed(raw.values.items()) if node.op == "get_attr"}
    learning = _after_layers(raw.module.graph)
    moved: dict[str, str] = {}
    for node in raw.module.graph.nodes:
        if node.op != "get_attr":
            continue
        old = str(node.target)
        if old not in moved:
            moved[old] = names.unique(attribute(value_of.get(node, old)))
            value = raw.module.get_buffer(old)
            if (
                value.is_floating_point()
                and value.numel() > 1
                and any(user in learning for user in node.users)
            ):
                root.register_parameter(moved[old], nn.Parameter(value))
                tensors[moved[old]] = value_of[node]
            else:
                root.register_buffer(moved[old], value)
        node.target = moved[old]
    module = fx.GraphModule(root, raw.module.graph, "Network")
    module.graph.lint()
    return module.eval(), tensors


def _after_layers(graph: fx.Graph) -> set[fx.Node]:
    """Nodes behind the first layer: stored floats there are biases and slopes; in front, preprocessing."""
    after, stored = set[fx.Node](), set[fx.Node]()
    for node in graph.nodes:
        inputs = node.all_input_nodes
        if node.op == "call_module" or after.intersection(inputs):
            after.add(node)
        if inputs and all(source.op == "get_attr" or source in stored for source in inputs):
            stored.add(node)
    # A bias may be reshaped before it is added: what leads only to nodes behind a layer belongs there too.
    for node in reversed(list(graph.nodes)):
        if node.op == "call_function" and node.users and node in stored and after.issuperset(node.users):
            after.add(node)
    return after


def _public(layers: onnx_layers.Layers) -> dict[str, str]:
    """Layer name -> path of convolutions and linear layers; one used twice has its first node's name."""
    return {
        layers.nodes[path][0]: path for path, module in layers.modules.items() if isinstance(module, LAYERS)
    }


def _alive(raw: Raw) -> dict[str, fx.Node]:
    alive = set(raw.module.graph.nodes)
    followed = {name: node.meta.get("replaced_by", node) for name, node in raw.values.items()}
    return {name: node for name, node in followed.items() if node in alive and node.op != "get_attr"}
