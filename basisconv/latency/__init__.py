"""Time as a budget: what layers and pairs take in a runtime, and plans that keep a share of it."""

from basisconv.latency.blocks import BlockTimer
from basisconv.latency.planning import Timed, plan_timed, time_network, variant_of
from basisconv.latency.table import LatencyTable
from basisconv.latency.timer import Apart, Cut, Timer, Times, Variant, Whole
from basisconv.latency.torch_timer import TorchTimer

__all__ = [
    "Apart",
    "BlockTimer",
    "Cut",
    "LatencyTable",
    "Timed",
    "Timer",
    "Times",
    "TorchTimer",
    "Variant",
    "Whole",
    "plan_timed",
    "time_network",
    "variant_of",
]
