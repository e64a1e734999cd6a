"""Pickles that spring the traps when they are read, in every protocol and disguise."""

import io
import pickle
from typing import Any

import numpy as np
import torch

from tests.hostile.corpus import Traps


class Bomb:
    """Unpickled, it runs the traps' code."""

    def __init__(self, traps: Traps) -> None:
        self.code = traps.code

    def __reduce__(self) -> Any:
        return (exec, (self.code,))


def pickled(traps: Traps, protocol: int) -> bytes:
    return pickle.dumps(Bomb(traps), protocol)


def by_hand(traps: Traps) -> bytes:
    """Opcodes of protocol 0 that no Pickler writes: INST builds by calling."""
    return b"(S" + repr(traps.code).encode() + b"\ni__builtin__\nexec\n."


def torch_saved(traps: Traps, *, zipped: bool = True) -> bytes:
    """A whole module as torch.save writes it; older ones as a row of pickles."""
    buffer = io.BytesIO()
    torch.save({"model": Bomb(traps), "w": torch.ones(2)}, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def object_array(traps: Traps) -> bytes:
    """An .npy whose array is a pickle."""
    buffer = io.BytesIO()
    array = np.empty(4, object)
    array[:] = [Bomb(traps)] * 4
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()
