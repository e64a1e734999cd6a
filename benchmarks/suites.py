"""What is run: networks, cuts, methods, seeds and recipes, as data. All suites run the same code."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from benchmarks.measure import Sizes
from benchmarks.methods import METHODS, Method
from benchmarks.methods.uncompressed import UNCOMPRESSED
from benchmarks.networks import MLPERF, VGG16
from benchmarks.raw import Key
from benchmarks.tuning import Recipe
from tests.support.networks import PLAIN, RESNETS

FORM_ONLY, WITHOUT_IMAGES = "basisconv_basis", "basisconv_datafree"
ALL = tuple(name for name in METHODS if name != WITHOUT_IMAGES)
CUTS = (0.3, 0.5, 0.6, 0.7, 0.8)


@dataclass(frozen=True)
class Part:
    """`calibration`: images without labels. `recipe`: fine-tuning of the cuts in `tuned`, if any.

    `once`: methods that get one seed here, `untuned`: methods without tuning, to stay within the time.
    """

    network: str
    cuts: tuple[float, ...]
    calibration: int
    methods: tuple[str, ...] = ALL
    seeds: tuple[int, ...] = (0, 1, 2)
    recipe: Recipe | None = None
    tuned: tuple[float, ...] = ()
    once: tuple[str, ...] = ()
    untuned: tuple[str, ...] = ()

    def seeds_of(self, method: Method) -> tuple[int, ...]:
        """For compressing: one, where nothing depends on it."""
        return self.seeds if method.seeded and method.name not in self.once else self.seeds[:1]

    def keys(self, method: Method, seed: int, cut: float) -> list[Key]:
        """The row without tuning, then those with it: a method without seeds is tuned from one start."""
        seeds = (seed,) if method.seeded else self.seeds
        tuned = [Key(self.network, method.name, cut, s, tuned=True) for s in seeds if self.tunes(method, cut)]
        return [Key(self.network, method.name, cut, seed, tuned=False), *tuned]

    def missing(self, method: Method, seed: int, has: Callable[[Key], bool]) -> tuple[float, ...]:
        """The cuts of which a row is still to be measured."""
        cuts = (0.0,) if method.name == UNCOMPRESSED.name else self.cuts
        return tuple(cut for cut in cuts if not all(map(has, self.keys(method, seed, cut))))

    def tunes(self, method: Method, cut: float) -> bool:
        return self.recipe is not None and method.name not in self.untuned and cut in (*self.tuned, 0.0)


@dataclass(frozen=True)
class Suite:
    parts: tuple[Part, ...]
    sizes: Sizes = field(default_factory=Sizes)


CPU = Suite(
    (
        Part(
            "cifar10_resnet20_a",
            CUTS,
            calibration=1024,
            recipe=Recipe(15_000),
            tuned=(0.5, 0.7),
            once=(FORM_ONLY,),
            untuned=(FORM_ONLY,),
        ),
        Part(
            "cifar10_resnet56_a",
            CUTS,
            calibration=512,
            methods=tuple(name for name in ALL if name != FORM_ONLY),
            once=("spatial_svd",),
        ),
    )
)

_LONG = Recipe(None, epochs=100, objective="both")
GPU = Suite(  # waits for a GPU: never run yet
    tuple(
        Part(network, cuts, 1024, recipe=_LONG, tuned=cuts, once=(FORM_ONLY,), untuned=(FORM_ONLY,))
        for network, cuts in (
            ("cifar10_resnet56_a", (0.5, 0.72)),
            ("cifar10_resnet20_a", (0.5, 0.72)),
            (VGG16, (0.66, 0.89)),
        )
    )
)

_SHORT = tuple(name for name in ALL if name != FORM_ONLY)
OTHERS = Suite(  # nothing was ever chosen on these
    tuple(
        Part(name, (0.3, 0.5, 0.7), calibration=512 if "56" in name else 1024, methods=_SHORT, seeds=(0,))
        for name in (*(n for n in RESNETS if n not in {part.network for part in CPU.parts}), PLAIN, MLPERF)
    )
)

_MADE = ("uncompressed", "weights", WITHOUT_IMAGES)
DATAFREE = Suite(
    tuple(
        Part(name, (0.3, 0.5), calibration=512, methods=_MADE, seeds=(0,))
        for name in (*RESNETS[:3], "cifar100_resnet20_b", PLAIN)
    )
)

SUITES = {"cpu": CPU, "others": OTHERS, "datafree": DATAFREE, "gpu": GPU}


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
