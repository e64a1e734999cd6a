"""Network -> .pt2, for networks of either format."""

from __future__ import annotations

import io
from pathlib import Path

import torch
from torch import fx

from basisconv.formats.export import program_of
from basisconv.formats.network import Network


def write(network: Network, compressed: fx.GraphModule, path: Path) -> None:
    """Export `compressed` and save it. The batch is open if it was open in the network's own file."""
    buffer = io.BytesIO()  # torch wants a path to end in .pt2, and not every path here does
    torch.export.save(program_of(network, compressed), buffer)
    path.write_bytes(buffer.getvalue())
