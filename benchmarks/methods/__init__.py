"""Every method that is compared, by name, in the order of the tables."""

from benchmarks.methods.datafree import WITHOUT_IMAGES
from benchmarks.methods.ours import OURS, OURS_BASIS_ONLY
from benchmarks.methods.peer import PRUNING, SPATIAL_SVD, TUCKER
from benchmarks.methods.protocol import Compressed, Method, Task
from benchmarks.methods.uncompressed import UNCOMPRESSED
from benchmarks.methods.weights import WEIGHTS

METHODS: dict[str, Method] = {
    method.name: method
    for method in (UNCOMPRESSED, WEIGHTS, TUCKER, SPATIAL_SVD, PRUNING, WITHOUT_IMAGES, OURS_BASIS_ONLY, OURS)
}

__all__ = ["METHODS", "Compressed", "Method", "Task"]
