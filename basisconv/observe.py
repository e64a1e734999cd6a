"""What a layer of the compressed network sees, beside what it should answer, image batch by batch.

Two ways: along the fx graph, where each part of both networks is run once and the value at a shortcut is
known; or, for modules that cannot be traced, by running both networks up to the layer each time.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, fx, nn

from basisconv.calibrate import Images
from basisconv.cost import evaluating
from basisconv.graph import Meeting, calls, inverse_scale, last_uses, meeting, norm_after, run_node, schedule
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
        values = [*self.original.values(), *self.compressed.values()]
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
    return {node: value.clone() if isinstance(value, Tensor) else value for node, value in values.items()}


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
        self._places = {path: i for i, path in calls(self._order)}

    @property
    def order(self) -> list[str]:
        return list(self._places)

    @property
    def nodes(self) -> list[fx.Node]:
        return self._order

    def norm_after(self, path: str) -> str | None:
        return norm_after(self._original, self._order[self._places[path]])

    def observe(self, path: str) -> Iterator[Observation]:
        """Per batch the layer's input and y + (s - s^) / scale, where the layer meets a shortcut s."""
        place = self._places[path]
        node = self._order[place]
        source = node.args[0] if node.args else next(iter(node.kwargs.values()))
        assert isinstance(source, fx.Node)
        shortcut = meeting(self._original, node)
        for state in self._states(place):
            if node not in state.original:
                with evaluating(self._original):
                    run_node(self._original, node, state.original)
            target = state.original[node]
            if shortcut is not None:
                target = target + self._lost(state, shortcut, target)
            yield state.compressed[source], target

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
        return windows(self._order, self._original, example, fitted)

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
        inputs = [node for node in self._order if node.op == "placeholder"]
        for x in self._images():
            yield _State(0, {inputs[0]: x.clone()}, {inputs[0]: x.clone()})

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


class _Reached(Exception):  # noqa: N818 - not an error: the rest of the forward pass is not needed
    pass


class HookObserver:
    """Both networks from their images up to the layer, each time; no shortcut correction."""

    def __init__(self, order: list[str], original: nn.Module, compressed: nn.Module, images: Images) -> None:
        self.order = order
        self._original, self._compressed, self._images = original, compressed, images

    def norm_after(self, path: str) -> str | None:  # noqa: ARG002 - without a graph nobody knows
        return None

    def observe(self, path: str) -> Iterator[Observation]:
        for x in self._images():
            seen = _until(self._compressed, path, x)[0]
            yield seen, _until(self._original, path, x)[1]


def _until(network: nn.Module, path: str, x: Tensor) -> Observation:
    """Input and output of one layer; the forward pass ends there."""
    caught: list[Observation] = []

    def note(_: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        caught.append((inputs[0], output))
        raise _Reached

    handle = network.get_submodule(path).register_forward_hook(note)
    try:
        with evaluating(network), torch.no_grad():
            network(x)
    except _Reached:
        pass
    finally:
        handle.remove()
    return caught[0]
