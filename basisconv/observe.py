"""What a layer of the compressed network sees, beside what it should answer, image batch by batch.

Two ways: along the fx graph, where each part of both networks is run once and the value at a shortcut is
known; or, for modules that cannot be traced, by running both networks up to the layer each time.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from basisconv.calibrate import Images
from basisconv.cost import evaluating
from basisconv.graph import (
    Meeting,
    arguments,
    calls,
    inverse_scale,
    last_uses,
    meeting,
    norm_after,
    run_node,
    schedule,
)
from basisconv.watch import layer_input
from basisconv.windows import Window, windows

MEMORY_BYTES = 1 << 30  # for both networks' values between two layers; beyond it they are computed again

Observation = tuple[Tensor, Tensor]  # the compressed network's input of the layer, the wanted raw response


class Observer(Protocol):
    @property
    def order(self) -> list[str]:
        """Paths of layers in the order in which they may be fitted."""

    def observe(self, path: str) -> Iterator[Observation]: ...

    def norm_after(self, path: str) -> str | None:
        """The batch norm right after the layer, where that is known."""


@dataclass
class _State:
    """Values of both networks for one batch, just before some node of the order."""

    at: int
    original: dict[fx.Node, Any] = field(default_factory=dict)
    compressed: dict[fx.Node, Any] = field(default_factory=dict)

    def fork(self) -> "_State":
        """A copy that in-place operations may spoil."""
        return _State(self.at, _cloned(self.original), _cloned(self.compressed))

    @property
    def size_bytes(self) -> int:
        values = tree_leaves([list(self.original.values()), list(self.compressed.values())])
        storages = [value.untyped_storage() for value in values if isinstance(value, Tensor)]
        return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


@dataclass(frozen=True)
class Passage:
    """One batch's way through a window: the compressed network's values before, the original's behind it."""

    values: dict[fx.Node, Any]
    source: fx.Node
    target: Tensor

    @property
    def images(self) -> int:
        return len(self.target)


def _cloned(values: dict[fx.Node, Any]) -> dict[fx.Node, Any]:
    return {node: tree_map_only(Tensor, torch.clone, value) for node, value in values.items()}


class GraphObserver:
    """Walks both networks through one graph; `compressed` may change behind the walk, never before it."""

    def __init__(
        self,
        graph: fx.Graph,
        original: nn.Module,
        compressed: nn.Module,
        images: Images,
        batches: int,
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        self._original, self._compressed = original, compressed
        self._images, self._room = images, memory_bytes // max(batches, 1)
        self._memory_bytes = memory_bytes
        self._entered: list[_State] = []
        self._entered_all = False
        self._order = schedule(graph, original)
        self._dead = last_uses(self._order)
        self._base: list[_State] | None = None  # None: every batch starts from its images
        self._places = calls(self._order, original)

    @property
    def order(self) -> list[str]:
        return list(self._places)

    @property
    def nodes(self) -> list[fx.Node]:
        return self._order

    def calls(self, path: str) -> int:
        """How often the graph runs the layer."""
        return len(self._places.get(path, ()))

    def norm_after(self, path: str) -> str | None:
        first, *later = self._places[path]
        return None if later else norm_after(self._original, self._order[first])

    def observe(self, path: str) -> Iterator[Observation]:
        """Per batch and call the layer's input and y + (s - s^) / scale, where it meets a shortcut s.

        Between the calls of one layer the compressed network runs it as it still is.
        """
        first, *later = self._places[path]
        for state in self._states(first):
            yield self._observed(state, first)
            ahead = state.fork() if later else state
            for place in later:
                with evaluating(self._original), evaluating(self._compressed):
                    self._advance(ahead, place)
                yield self._observed(ahead, place)

    def _observed(self, state: _State, place: int) -> Observation:
        node = self._order[place]
        source = node.args[0] if node.args else next(iter(node.kwargs.values()))
        assert isinstance(source, fx.Node)
        if node not in state.original:
            with evaluating(self._original):
                run_node(self._original, node, state.original)
        target = state.original[node]
        shortcut = meeting(self._original, node)
        if shortcut is not None:
            target = target + self._lost(state, shortcut, target)
        return state.compressed[source], target

    def _lost(self, state: _State, shortcut: Meeting, like: Tensor) -> Tensor | float:
        """What the shortcut lost, in the units of the layer's raw response."""
        s, s_hat = state.original.get(shortcut.other), state.compressed.get(shortcut.other)
        if not isinstance(s, Tensor) or not isinstance(s_hat, Tensor) or s.shape != like.shape:
            return 0.0
        scale = inverse_scale(self._compressed, shortcut.norms)
        if isinstance(scale, Tensor):
            scale = scale.view(-1, *[1] * (like.dim() - 2))
        return (s - s_hat) * scale

    def windows(self, example: Tensor, fitted: set[str]) -> list[Window]:
        once = {path for path in fitted if self.calls(path) == 1}  # other calls may lie outside a window
        return windows(self._order, self._original, example, once)

    def enter(self, window: Window) -> None:
        """Remember what goes into the window, of as many batches as there is room for."""
        self._entered = []
        size = 0
        for state in self._states(window.start):
            kept = state.fork()
            size += kept.size_bytes
            if size > self._memory_bytes:
                self._entered_all = False
                return
            self._entered.append(kept)
        self._entered_all = True

    def passages(self, window: Window) -> list[Passage]:
        """What the compressed network has before the window, and what the original has behind it."""
        found = []
        with evaluating(self._original):
            for state in self._entered:
                values = _cloned(state.original)
                self._through(self._original, window, values)
                found.append(Passage(state.compressed, window.source, values[window.out]))
        return found

    def cross(self, window: Window, passage: Passage) -> Tensor:
        """The compressed network's value behind the window; keeps gradients where they are enabled."""
        values = _cloned(passage.values)
        self._through(self._compressed, window, values)
        out: Tensor = values[window.out]
        return out

    def leave(self) -> None:
        """The window's layers have changed: what was computed with the old ones is computed again."""
        self._base = [state.fork() for state in self._entered] if self._entered_all else None
        self._entered = []

    def _through(self, network: nn.Module, window: Window, values: dict[fx.Node, Any]) -> None:
        for node in self._order[window.start : window.stop]:
            run_node(network, node, values)
            for dead in self._dead[node]:
                if dead is not window.out:
                    values.pop(dead, None)

    def _states(self, stop: int) -> Iterator[_State]:
        """Every batch's state before node `stop`; kept in memory where there is room."""
        kept: list[_State] = []
        keeps: bool | None = None
        for i, start in enumerate(self._starts()):
            fresh = self._base is None
            state = start if fresh or keeps else start.fork()
            with evaluating(self._original), evaluating(self._compressed):
                self._advance(state, stop)
            keeps = state.size_bytes <= self._room if keeps is None else keeps
            if keeps:
                kept.append(state)
                if self._base is not None:
                    self._base[i] = state  # the older values are no longer needed
            yield state
        if keeps:
            self._base = kept

    def _starts(self) -> Iterator[_State]:
        if self._base is not None:
            yield from list(self._base)
            return
        for x in self._images():
            yield _State(0, arguments(self._order, x.clone()), arguments(self._order, x.clone()))

    def _advance(self, state: _State, stop: int) -> None:
        for node in self._order[state.at : stop]:
            if node.op != "placeholder":
                for network, values in self._sides(state):
                    if node not in values:
                        run_node(network, node, values)
            for _, values in self._sides(state):
                for dead in self._dead[node]:
                    values.pop(dead, None)
        state.at = stop

    def _sides(self, state: _State) -> tuple[tuple[nn.Module, dict[fx.Node, Any]], ...]:
        return (self._original, state.original), (self._compressed, state.compressed)


class _Enough(Exception):  # noqa: N818 - not an error: the rest of the forward pass is not needed
    pass


class HookObserver:
    """Both networks from their images up to the layer, each time; no shortcut correction.

    `calls`: how often each layer is expected to run, in the order in which they may be fitted. Calls that
    only one of the two networks makes, or on other shapes, tell nothing and are left out.
    """

    def __init__(
        self, calls: Mapping[str, int], original: nn.Module, compressed: nn.Module, images: Images
    ) -> None:
        self.order = list(calls)
        self._calls = calls
        self._original, self._compressed, self._images = original, compressed, images

    def norm_after(self, path: str) -> str | None:  # noqa: ARG002 - without a graph nobody knows
        return None

    def observe(self, path: str) -> Iterator[Observation]:
        most = self._calls.get(path, 1)
        for x in self._images():
            ours, theirs = (_until(n, path, x.clone(), most) for n in (self._compressed, self._original))
            for (seen, response), (_, target) in zip(ours, theirs, strict=False):
                if response.shape == target.shape:
                    yield seen, target


def _until(network: nn.Module, path: str, x: Tensor, most: int) -> list[Observation]:
    """Input and output of a layer's calls; the forward pass ends with the last that is expected."""
    caught: list[Observation] = []

    def note(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
        caught.append((layer_input(args, kwargs).clone(), output.clone()))
        if len(caught) == most:
            raise _Enough

    handle = network.get_submodule(path).register_forward_hook(note, with_kwargs=True)
    try:
        with evaluating(network), torch.no_grad():
            network(x)
    except _Enough:
        pass
    finally:
        handle.remove()
    return caught
