"""Which lines of ONNX Runtime's profile belong to which layer.

The runtime fuses batch norms, activations and additions into convolutions and names what it makes after
a node or after the value that comes out, with endings of its own.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Final

from onnx import ModelProto, NodeProto

from basisconv.formats.network import Network
from basisconv.formats.onnx_checks import node_names

_ENDING: Final = re.compile(r"_token_\d+$")
_REORDERS: Final = ("ReorderInput", "ReorderOutput")
_CHAIN: Final = 6  # nodes behind a layer that the runtime may have fused into it


@dataclass(frozen=True)
class Place:
    """A layer's lines in the profile, by number."""

    nodes: tuple[int, ...]


def places(
    network: Network, model: ModelProto, names: Sequence[str], kinds: Sequence[str]
) -> dict[str, Place]:
    """Submodule path -> its lines. `names`, `kinds`: the profile, in the order of execution.

    A layer of which a line is missing is left out: the runtime merged it with something else.
    """
    walk = _Walk(network, model)
    known = {name: i for i, name in reversed(list(enumerate(names))) if kinds[i] not in _REORDERS}
    known |= {_plain(name): i for name, i in list(known.items()) if _plain(name) not in known}
    found: dict[str, Place] = {}
    for path in network.layers.values():
        lines = [_line(walk.aliases(node), known) for node in walk.nodes_of(path)]
        sure = [line for line in lines if line is not None]
        if lines and len(sure) == len(lines):
            found[path] = Place(_with_reorders(sorted(set(sure)), kinds))
    return _unshared(found)


def _plain(name: str) -> str:
    """Without what the runtime adds to a name."""
    return _ENDING.sub("", name).removesuffix("_nchwc").removeprefix("fused ")


def _line(aliases: Sequence[str], known: dict[str, int]) -> int | None:
    return next((known[alias] for alias in aliases if alias in known), None)


def _with_reorders(lines: list[int], kinds: Sequence[str]) -> tuple[int, ...]:
    """With the changes of layout that follow the first layer of a pair; another branch may run between."""
    after = takewhile(lambda i: kinds[i] in _REORDERS, range(lines[0] + 1, lines[-1]))
    return tuple(sorted({*lines, *after}))


def _unshared(found: dict[str, Place]) -> dict[str, Place]:
    """Without layers that claim the same line: one of them was fused away."""
    users: dict[int, int] = {}
    for place in found.values():
        for line in place.nodes:
            users[line] = users.get(line, 0) + 1
    return {path: place for path, place in found.items() if all(users[line] == 1 for line in place.nodes)}


class _Walk:
    """The written model's graph, from a layer of the network to the nodes that stand for it now."""

    def __init__(self, network: Network, model: ModelProto) -> None:
        source = network.source
        assert isinstance(source, ModelProto)
        self._source = dict(zip(node_names(source.graph), source.graph.node, strict=True))
        self._network = network
        self._maker = {value: node for node in model.graph.node for value in node.output}
        self._readers: dict[str, list[NodeProto]] = {}
        for node in model.graph.node:
            for value in node.input:
                self._readers.setdefault(value, []).append(node)

    def nodes_of(self, path: str) -> list[NodeProto]:
        """The nodes that stand between the layer's input and its output."""
        found = []
        for name in self._network.nodes[path]:
            was = self._source[name]
            at = self._maker.get(was.output[0])
            while at is not None:
                if at.op_type != "Add" or was.op_type == "Add":  # the bias of a MatMul is a line of its own
                    found.append(at)
                at = None if at.input[0] == was.input[0] else self._maker.get(at.input[0])
        return found[::-1]

    def aliases(self, node: NodeProto) -> list[str]:
        """What the runtime may call it: by its name, its value, or what only its value goes into."""
        names = [node.name, node.output[0]]
        for _ in range(_CHAIN):
            readers = self._readers.get(node.output[0], [])
            if len(readers) != 1:
                break
            node = readers[0]
            if node.op_type in ("Conv", "Gemm", "MatMul"):
                break
            names += [node.name, node.output[0]]
        return [name for name in names if name]
