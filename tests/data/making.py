"""Uploads made for tests: archives, images and .npz files, and the inspection of one."""

import io
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from app.core.errors import Problem
from worker.data.ingest import inspect_dataset

Pixels = npt.NDArray[np.uint8]


def picture(height: int, width: int, channels: int = 3, seed: int = 0) -> Pixels:
    """Random pixels: any loss or mix-up shows."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def encode(pixels: Pixels, form: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    flat = pixels[..., 0] if pixels.shape[-1] == 1 else pixels
    Image.fromarray(flat).save(buffer, form, **options)
    return buffer.getvalue()


def zip_of(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def tar_of(files: Mapping[str, bytes], mode: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def npz_of(**arrays: npt.NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def inspect(folder: Path, upload: bytes, form: str, **task: Any) -> dict[str, Any]:
    """Run the real inspection on an upload; the canonical file lies in `folder` afterwards."""
    (folder / "upload").write_bytes(upload)
    whole = {"task": "inspect_dataset", "file": "upload", "format": form, "canonical": "canonical", **task}
    return inspect_dataset(whole, folder, lambda message: None)


def class_folders(count: int = 5, size: tuple[int, int] = (6, 6)) -> dict[str, bytes]:
    """`count` small images in each of the classes cat and dog."""
    return {
        f"{name}/{number}.png": encode(picture(*size, seed=number + 100 * (name == "dog")))
        for name in ("cat", "dog")
        for number in range(count)
    }


def outcome(folder: Path, upload: bytes, form: str) -> dict[str, Any] | Problem:
    """What comes of an upload, refusals too; anything else that is raised is a crash."""
    try:
        return inspect(folder, upload, form)
    except Problem as problem:
        return problem
