"""What was taken out of a stranger's .pt2, as a clean archive for torch to load."""

from __future__ import annotations

import io
import json
import math
from typing import IO, Any, Final

import torch
from torch.export.pt2_archive import PT2ArchiveWriter
from torch.export.pt2_archive.constants import SAMPLE_INPUTS_FILENAME_FORMAT

from basisconv.errors import MethodError
from basisconv.formats.names import quoted
from basisconv.formats.pt2_archive import CONSTANTS_CONFIG, MODEL, WEIGHTS_CONFIG, Archive, Payload

# torch._export.serde.schema.ScalarType: the FLOATS of pt2_archive.
_FLOAT_TYPES: Final = {6: torch.float16, 7: torch.float32, 8: torch.float64, 13: torch.bfloat16}


def refuse_infinite(archive: Archive) -> None:
    """Raises malformed_model for a stored tensor with numbers that are none."""
    for name, payload in archive.payloads():
        sizes, strides, offset = payload.extent()
        elements = math.prod(sizes)
        if payload.meta["dtype"] not in _FLOAT_TYPES or not elements:
            continue
        blob = bytearray(archive.blobs[payload.record])
        storage = torch.frombuffer(blob, dtype=_FLOAT_TYPES[payload.meta["dtype"]])
        values = torch.as_strided(storage, sizes, strides, offset)
        bad = elements - int(torch.isfinite(values).sum())
        if bad and (elements > 1 or bool(values.isnan())):
            raise MethodError(
                "malformed_model",
                f"The weights {quoted(name)} hold {bad} numbers of {elements} that are NaN or infinite.",
                layer=name,
                hint="The network diverged while it was trained, or the file is damaged.",
            )


def write(archive: Archive, sample: torch.Tensor, file: IO[bytes]) -> None:
    """A clean archive of checked parts, with a sample input of our own."""
    buffer = io.BytesIO()
    torch.save(((sample,), {}), buffer)
    with PT2ArchiveWriter(file) as writer:
        for record, blob in archive.blobs.items():
            writer.write_bytes(record, blob)
        for form, payloads in (
            (WEIGHTS_CONFIG, archive.weights),
            (CONSTANTS_CONFIG, archive.constants),
        ):
            writer.write_string(form.format("model"), json.dumps({"config": _config(payloads)}))
        writer.write_string(MODEL.format("model"), json.dumps(archive.program))
        writer.write_bytes(SAMPLE_INPUTS_FILENAME_FORMAT.format("model"), buffer.getvalue())


def _config(payloads: dict[str, Payload]) -> dict[str, Any]:
    return {
        name: {
            "path_name": payload.record.rsplit("/", 1)[1],
            "is_param": payload.is_param,
            "use_pickle": False,
            "tensor_meta": payload.meta,
        }
        for name, payload in payloads.items()
    }
