"""A module built from weights -> a .pt2, which is then read like any stranger's."""

from __future__ import annotations

import io
from pathlib import Path

import torch
from torch import nn
from torch.export import Dim

from basisconv.errors import MethodError
from basisconv.formats.export import quiet


def write(module: nn.Module, shape: tuple[int, int, int], target: Path) -> None:
    """torch.export of a module in eval mode for images of C×H×W, the batch open.

    Nothing is computed: shapes alone are traced. Raises malformed_model where the network does not take such
    images.
    """
    images = torch.zeros(2, *shape)
    try:
        with quiet(), torch.no_grad():
            program = torch.export.export(
                module, (images,), dynamic_shapes=({0: Dim("batch")},), strict=False
            )
    except MemoryError:
        raise
    except Exception as error:  # whatever its code raises on images that it does not take
        reason = " ".join(str(error).split())[:300]
        raise MethodError(
            "malformed_model",
            f"The network cannot be run on images of shape {list(shape)}: {reason}",
            hint='Say the images\' size with `input`: {"shape": [channels, height, width]}.',
        ) from error
    buffer = io.BytesIO()  # torch wants a path to end in .pt2
    torch.export.save(program, buffer)
    target.write_bytes(buffer.getvalue())
