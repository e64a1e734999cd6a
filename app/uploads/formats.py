"""Which formats an unfinished upload can still become, told from its first bytes."""

from app.core.errors import UnsafeSerialization, UnsupportedFormat
from app.datasets.sniff import sniff as sniff_dataset
from app.models.sniff import sniff as sniff_model
from app.uploads.tus import Kind

_SNIFFERS = {"model": sniff_model, "dataset": sniff_dataset}


def check_format(head: bytes, filename: str, kind: Kind | None) -> None:
    """Raises UnsupportedFormat or UnsafeSerialization for what can be neither a network nor a data set, or
    not the one that it is said to be."""
    refusals: list[UnsupportedFormat | UnsafeSerialization] = []
    for name, sniff in _SNIFFERS.items():
        if kind in (None, name):
            try:
                sniff(head, filename)
            except (UnsupportedFormat, UnsafeSerialization) as refusal:
                refusals.append(refusal)
            else:
                return
    raise min(refusals, key=lambda refusal: not isinstance(refusal, UnsafeSerialization))
