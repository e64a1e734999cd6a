"""The layer table's rows and what they cost, as numbers; needs no torch."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Layer:
    """One row of the layer table; the fields are those of the REST contract, plus `calls`.

    `max_rank` and `break_even_rank` are of the paper's form and per group; the pair is cheaper at ranks up
    to and including `break_even_rank`. `output_size` is (H, W); for linear layers the positions the layer
    runs on, (1, 1) for one.
    """

    name: str
    kind: str
    in_channels: int
    out_channels: int
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    groups: int
    output_size: tuple[int, ...]
    macs: int
    params: int
    max_rank: int
    break_even_rank: int
    compressible: bool
    reason: str | None
    calls: int


@dataclass(frozen=True)
class LayerCost:
    macs: int
    params: int


@dataclass(frozen=True)
class Costs:
    """`learnable_params`: what remains to be learned when the basis filters stay frozen (the paper's way)."""

    macs: int
    params: int
    learnable_params: int
    layers: dict[str, LayerCost] = field(default_factory=dict)
