"""The network as it came, so that it gets the same fine-tuning as the compressed ones."""

import copy
from collections.abc import Iterator

from benchmarks.methods.protocol import Compressed, Task


class Uncompressed:
    name = "uncompressed"
    title = "uncompressed"
    seeded = False

    def compress(self, task: Task) -> Iterator[Compressed]:
        yield Compressed(0.0, copy.deepcopy(task.original), 0.0, 0.0)


UNCOMPRESSED = Uncompressed()
