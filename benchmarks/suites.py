"""What is run: networks, cuts, methods, seeds and recipes, as data. The two suites run the same code."""

from dataclasses import dataclass, field, replace

from benchmarks.measure import Sizes
from benchmarks.methods import METHODS
from benchmarks.networks.vgg16 import VGG16
from benchmarks.tuning import Recipe

ALL = tuple(METHODS)
CUTS = (0.3, 0.5, 0.6, 0.7, 0.8)


@dataclass(frozen=True)
class Part:
    """`calibration`: images without labels. `recipe`: fine-tuning of the cuts in `tuned`, if any."""

    network: str
    cuts: tuple[float, ...]
    calibration: int
    methods: tuple[str, ...] = ALL
    seeds: tuple[int, ...] = (0, 1, 2)
    recipe: Recipe | None = None
    tuned: tuple[float, ...] = ()


@dataclass(frozen=True)
class Suite:
    parts: tuple[Part, ...]
    sizes: Sizes = field(default_factory=Sizes)


CPU = Suite(
    (
        Part("cifar10_resnet20_a", CUTS, 1024, recipe=Recipe(10_000), tuned=(0.5, 0.7)),
        Part("cifar10_resnet56_a", CUTS, 512),
    )
)

_LONG = Recipe(None, epochs=100, objective="both")
GPU = Suite(  # waits for a GPU: never run yet
    (
        Part("cifar10_resnet56_a", (0.5, 0.72), 1024, recipe=_LONG, tuned=(0.5, 0.72)),
        Part("cifar10_resnet20_a", (0.5, 0.72), 1024, recipe=_LONG, tuned=(0.5, 0.72)),
        Part(VGG16, (0.66, 0.89), 1024, recipe=_LONG, tuned=(0.66, 0.89)),
    )
)

SUITES = {"cpu": CPU, "gpu": GPU}


def small(suite: Suite) -> Suite:
    """The same code at sizes that prove it in minutes; its figures say nothing."""
    parts = tuple(
        replace(
            part,
            cuts=part.cuts[1:3],
            calibration=64,
            seeds=part.seeds[:1],
            recipe=replace(part.recipe, images=256, epochs=1) if part.recipe else None,
            tuned=part.tuned[:1],
        )
        for part in suite.parts
    )
    return Suite(parts, Sizes(test_images=500, runs=8))
