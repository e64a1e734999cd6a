"""Uploads that hold weights and name a network: it is built here, and goes on as a .pt2 like any other."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from app.core.errors import MalformedModel, UnsupportedFormat, ValidationFailed
from basisconv.errors import MethodError
from basisconv.formats import architectures, checkpoint, exporting
from basisconv.formats.compare import TOLERANCE, difference
from basisconv.formats.network import Network, evaluating
from basisconv.formats.stored import fill
from worker.model_folder import PREPROCESSOR, read_folder
from worker.requested import MAX_PIXELS, Requested

EXPORTED: Final = "exported"


@dataclass(frozen=True)
class Source:
    """A .pt2 of ours in the place of the upload, and what is known of its input."""

    path: Path
    requested: Requested
    module: nn.Module
    architecture: str

    def check(self, network: Network) -> None:
        """Raises import_mismatch if what was exported and read back does not answer as what was built."""
        images = network.example(2)
        with evaluating(self.module), evaluating(network.module):
            ours, theirs = network.module(images), self.module(images)
        if (off := difference(ours.numpy(), theirs.numpy())) > TOLERANCE:
            raise MethodError(
                "import_mismatch",
                f"The exported network's outputs differ from those of {self.architecture} by {off:.2g} of "
                f"the largest value (up to {TOLERANCE:g} is rounding).",
                hint="Export the network yourself: torch.export.save gives a .pt2.",
            )


def build(found: str, upload: Path, task: Mapping[str, Any]) -> Source:
    """The network that an upload of this format describes."""
    said = task.get("input") or {}
    if found == "huggingface":
        return from_folder(upload, said)
    return from_weights(upload, task.get("architecture"), said)


def from_weights(upload: Path, name: str | None, said: Mapping[str, Any]) -> Source:
    """Weights alone, of a network that the uploader named."""
    known = architectures.KNOWN.get(name or "")
    if name is None or known is None:
        raise UnsupportedFormat(
            f"The weights name no network that is known ({str(name)[:60]}).",
            hint="GET /v1/architectures lists those that are.",
        )
    weights = checkpoint.read(upload)
    module = fill(lambda: known.make(weights, name), weights, name)
    told = {"shape": [known.channels(weights, name), known.side, known.side]}
    return _export(upload, module, name, _input(told, said))


def from_folder(upload: Path, said: Mapping[str, Any]) -> Source:
    """A Hugging Face model folder. `said`: what the uploader told of the input, which goes before its own."""
    from basisconv.formats import huggingface, huggingface_input  # its library takes seconds to import

    folder = read_folder(upload, upload.parent)
    built = huggingface.build(folder.config, folder.state)
    told: dict[str, Any] = {"shape": list(built.shape)}
    if folder.preprocessor is not None:
        told |= huggingface_input.read_input(folder.preprocessor, built.shape[0])
    return _export(upload, built.module, built.architecture, _input(told, said))


def _input(told: dict[str, Any], said: Mapping[str, Any]) -> Requested:
    if said.get("shape") not in (None, told["shape"]):  # the folder's crop was for another size
        told = {name: value for name, value in told.items() if name not in ("resize", "crop")}
    try:
        Requested(told).check(told["shape"][0])
    except ValidationFailed as problem:
        raise MalformedModel(
            f"{PREPROCESSOR}: {problem.detail}", hint="Correct it, or say `input` yourself."
        ) from problem
    return Requested(told | {name: value for name, value in said.items() if value is not None})


def _export(upload: Path, module: nn.Module, architecture: str, requested: Requested) -> Source:
    assert requested.shape is not None
    if math.prod(requested.shape) > MAX_PIXELS:
        raise MalformedModel(
            f"One image of {list(requested.shape)} floats is more than {MAX_PIXELS:,}.",
            hint='Say a smaller size when you upload: input {"shape": [3, 224, 224]}.',
        )
    target = upload.with_name(EXPORTED)
    with torch.no_grad():
        exporting.write(module, requested.shape, target)
    return Source(target, requested, module, architecture)
