"""Everything that a job's stages share: what was asked, what came in, and what has been found so far."""

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
from torch import Tensor, fx

from app.jobs.options import JobOptions, LayerForm
from basisconv.config import DecomposeConfig, Decomposition
from basisconv.cost import Costs, count
from basisconv.datafree import Synthetic
from basisconv.formats.network import Network
from basisconv.formats.onnx_session import Device
from basisconv.forms import Cut
from basisconv.latency import Timed
from basisconv.options import Measured
from basisconv.smallest import Smallest
from worker import runners
from worker.checkpoint import Keeper
from worker.data.materialize import Images
from worker.data.spec import InputSpec
from worker.measure import Answers, TestImages, score
from worker.runners import Runner

if TYPE_CHECKING:
    from worker.timing import Timing

Message = dict[str, Any]
Said = Iterator[Message]
Step = TypeVar("Step")
End = TypeVar("End")


@dataclass
class Work:
    """One job in its child. `original` is never changed; `module` is what becomes of it."""

    options: JobOptions
    folder: Path
    model: dict[str, Any]  # file, format, input, summary, layers, details, name
    bytes_original: int
    device: torch.device
    latency_device: Device  # where networks are timed
    threads: int
    network: Network
    original: fx.GraphModule
    module: fx.GraphModule
    spec: InputSpec
    images: Images | None
    tests: TestImages
    keeper: Keeper
    # Found on the way:
    reference: Answers | None = None  # the original's answers
    synthetic: Synthetic | None = None  # images made for a job without a data set
    truncated: Message | None = None  # scores right after decomposition; None: nothing happens to it after
    compressed: Answers | None = None
    measured: Measured | None = None  # by calibrate, for decompose
    timed: Timed | None = None  # under a target on time: what the runtime said
    search: Smallest | None = None  # where the target is a loss of accuracy
    held_back: int = 0  # train images that the search judged by
    decomposition: Decomposition | None = None
    tuning: Message | None = None  # what fine-tuning chose, api.md's `result.tuning`
    files: list[Message] = field(default_factory=list)  # exports, published or not
    attachments: list[Message] = field(default_factory=list)
    timings: "list[Timing]" = field(default_factory=list)  # of the model's own format, by batch size

    @property
    def example(self) -> Tensor:
        return self.network.example().to(self.device)

    @cached_property
    def public(self) -> dict[str, str]:
        """Submodule path → public layer name."""
        return dict(self.network.public())

    def named(self, path: str) -> str:
        """A layer's public name, where it has one."""
        return self.public.get(path, path)

    @cached_property
    def costs_before(self) -> Costs:
        return count(self.original, self.example)

    def runner(self, module: fx.GraphModule) -> Runner:
        return runners.of_module(module, self.device, self.network.module_batch)

    def scored(self, answers: Answers) -> Message:
        """Accuracy and agreement of a network that answered so."""
        assert self.reference is not None
        return score(answers, self.reference, self.tests, self.network.output_names).document()

    @property
    def with_images(self) -> bool:
        return self.images is not None

    @property
    def allowed_loss(self) -> float | None:
        """Of accuracy, where that is the target: the network is then searched for."""
        return self.options.compression.target.accuracy_drop

    def config(self) -> DecomposeConfig:
        """The request in the method's own terms: submodule paths instead of public names.

        A loss of accuracy is no such term: the search asks for shares of the operations, at first all.
        """
        wanted = self.options.compression
        basis = wanted.basis or "activations"
        target = wanted.target
        auto = basis == "activations" and target.kind != "ranks"
        kind, value = target.kind, cast(Any, target.value)
        if self.allowed_loss is not None:
            kind, value = "macs", 1.0
        if isinstance(value, dict):
            value = {self.network.layers[name]: _cut(asked) for name, asked in value.items()}
        return DecomposeConfig(
            basis=basis,  # type: ignore[arg-type]
            target_kind=kind,  # type: ignore[arg-type]
            target_value=value,
            forms=wanted.forms or ("auto" if auto else "basis"),
            include=self.open_layers(),
            rank_multiple=wanted.rank_multiple,
            seed=self.options.training.seed,
        )

    def open_layers(self) -> tuple[str, ...]:
        """Paths of the layers that the request lets change."""
        return tuple(path for name, path in self.network.layers.items() if self._allowed(name))

    def _allowed(self, name: str) -> bool:
        layers = self.options.compression.layers
        return any(fnmatchcase(name, pattern) for pattern in layers.include) and not any(
            fnmatchcase(name, pattern) for pattern in layers.exclude
        )


def _cut(asked: LayerForm) -> Cut | None:
    """What a layer shall become, in the method's own terms."""
    return None if asked.form == "dense" or asked.rank is None else Cut(asked.form, asked.rank)


def progress(fraction: float, message: str = "", **more: Any) -> Message:
    """A progress message; `fraction` of the present stage."""
    return {"type": "progress", "fraction": fraction, "message": message} | more


def told(steps: Generator[Step, None, End], say: Callable[[Step], Message]) -> Generator[Message, None, End]:
    """The method's steps as messages; returns what the steps return."""
    while True:
        try:
            step = next(steps)
        except StopIteration as end:
            found: End = end.value
            return found
        yield say(step)


def warning(code: str, detail: str) -> Message:
    return {"type": "warning", "code": code, "detail": detail}


def metric(name: str, step: int, value: float) -> Message:
    return {"type": "metric", "name": name, "step": step, "value": value}
