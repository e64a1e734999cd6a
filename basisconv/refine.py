"""When the layers of a fit from front to back are refined together: window by window, where affordable."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice

from torch import Generator, Tensor, nn

from basisconv.basis.activations import output_metric
from basisconv.calibrate import Images
from basisconv.cost import Site, count
from basisconv.observe import GraphObserver, Observer
from basisconv.plan import Planned
from basisconv.reconstruct import Effort, reconstruct_
from basisconv.windows import Window, second_moments

METRIC_BATCHES = 8  # of calibration images, for what an error behind a window costs


@dataclass(frozen=True)
class Refinement:
    """Where the layers just fitted are refined together, if that is affordable."""

    module: nn.Module
    observer: GraphObserver | None
    effort: Effort | None
    roots: dict[Window, Tensor]
    generator: Generator

    @classmethod
    def over(
        cls,
        module: nn.Module,
        example: Tensor,
        todo: list[Site],
        planned: Mapping[str, Planned],
        observer: Observer,
        images: Images,
        generator: Generator,
    ) -> "Refinement":
        saved = sum(s.layer.macs - planned[s.layer.name].option.macs for s in todo)
        effort = Effort.affordable(count(module, example).macs - saved, example.device)
        if not isinstance(observer, GraphObserver) or effort is None:
            return cls(module, None, None, {}, generator)
        replaced = {s.layer.name for s in todo if planned[s.layer.name].option.form != "dense"}
        found = observer.windows(example, {s.layer.name for s in todo})
        found = [window for window in found if replaced & set(window.layers)]
        if not found:
            return cls(module, None, None, {}, generator)
        moments = second_moments(observer.nodes, module, found, islice(images(), METRIC_BATCHES), generator)
        roots = {w: output_metric(moments[w.out]).root for w in found if w.out in moments}
        return cls(module, observer, effort, roots, generator)

    def enter_before(self, path: str) -> None:
        for window in self.roots:
            if window.layers[0] == path and self.observer is not None:
                self.observer.enter(window)

    def leave_after(self, path: str) -> None:
        for window, root in self.roots.items():
            if window.layers[-1] == path and self.observer is not None and self.effort is not None:
                layers = [self.module.get_submodule(inside) for inside in window.layers]
                passages = self.observer.passages(window)
                cross = partial(self.observer.cross, window)
                reconstruct_(layers, passages, cross, root, self.effort, self.generator)
                self.observer.leave()
