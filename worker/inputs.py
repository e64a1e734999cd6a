"""What a child works on: the canonical network and data set in its folder, and what it is told of them."""

from pathlib import Path
from typing import Any, Final

import structlog

from app.core.errors import Internal
from app.datasets.tables import Dataset
from app.models.tables import Model
from app.storage.watched import Each
from worker.cache import DiskCache, sized_name
from worker.runtime import Runtime
from worker.sandbox import Policy, has_devices

MODEL: Final = "model"
DATASET: Final = "dataset"
SIZED: Final = "sized"  # the data set decoded at the network's size
FILE_BYTES: Final = 256_000_000_000

log = structlog.get_logger(__name__)


def fetch(runtime: Runtime, model: Model, dataset: Dataset | None, folder: Path, each: Each) -> bool:
    """Put the canonical network and data set into the folder; whether the decoded data set was there too."""
    runtime.store.download_to(canonical(model), folder / MODEL, each)
    if dataset is None:
        return False
    sha256, cache = canonical(dataset), _cache(runtime)
    cache.fetch(sha256, folder / DATASET, lambda path: runtime.store.download_to(sha256, path, each))
    return cache.lend(sized_name(sha256, model.input or {}), folder / SIZED)


def canonical(row: Model | Dataset) -> str:
    if row.canonical_sha256 is None:
        raise Internal(f"{row.id} is {row.status} and has no canonical form.")
    return row.canonical_sha256


def policy(runtime: Runtime) -> Policy:
    """What a child may do that works on a network. With a GPU, its memory is the driver's affair."""
    settings = runtime.settings
    devices = settings.wants_gpu() and has_devices()
    return Policy(
        address_bytes=0 if devices else settings.job_bytes,
        data_bytes=0 if devices else runtime.memory_bytes,
        file_bytes=FILE_BYTES,
        uid=runtime.uid,
        devices=devices,
        readable=runtime.readable,
    )


def keep_sized(runtime: Runtime, model: Model, dataset: Dataset | None, folder: Path) -> None:
    """Keep the data set that the child decoded, for whoever comes next."""
    sized = folder / SIZED
    if dataset is None or not sized.is_file() or sized.is_symlink():
        return
    name = sized_name(canonical(dataset), model.input or {})
    try:
        _cache(runtime).keep(name, sized)
    except OSError as error:  # a full disk must not cost finished work its result
        log.warning("cache.not_kept", error=str(error))


def describe(runtime: Runtime, model: Model, dataset: Dataset | None) -> dict[str, Any]:
    """The parts of a task that are about its inputs and where it computes."""
    task: dict[str, Any] = {
        "model": {
            "file": MODEL,
            "format": model.format,
            "input": model.input,
            "summary": model.summary,
            "layers": model.layers,
            "details": model.details,
            "name": model.name,
        },
        "dataset": None,
        "device": runtime.settings.device,
        "latency_device": runtime.settings.latency_device,
        "threads": runtime.threads,
        "bytes_original": model.bytes,
    }
    if dataset is not None:
        about = {"classes": dataset.classes, "labelled": dataset.labelled, "examples": dataset.examples}
        task["dataset"] = about | {"file": DATASET, "cache": SIZED, "name": dataset.name}
    return task


def _cache(runtime: Runtime) -> DiskCache:
    return DiskCache(runtime.cache_root, runtime.settings.cache_bytes)
