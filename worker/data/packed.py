"""Lossless storage of one image: differences to the left neighbour, deflated.

Measured on a 500×400 photograph: 7.7 ms to pack, 2.8 ms to unpack, 308 kB. PNG at level 1 takes 13.7 ms,
6.2 ms and 275 kB, and packing is most of an inspection's time.
"""

import struct
import zlib
from typing import Final

import numpy as np

from worker.data.decode import Pixels

_SHAPE: Final = struct.Struct("<III")  # height, width, channels
_LEVEL: Final = 1


def pack(pixels: Pixels) -> bytes:
    """H×W×C uint8 as bytes."""
    differences = pixels.copy()
    differences[:, 1:] -= pixels[:, :-1]  # modulo 256
    return _SHAPE.pack(*pixels.shape) + zlib.compress(differences.tobytes(), _LEVEL)


def unpack(data: bytes) -> Pixels:
    """What `pack` was given."""
    shape = _SHAPE.unpack_from(data)
    differences = np.frombuffer(zlib.decompress(memoryview(data)[_SHAPE.size :]), np.uint8)
    pixels: Pixels = np.cumsum(differences.reshape(shape), axis=1, dtype=np.uint8)
    return pixels
