"""Write the files. The model's own format is always written: its size and speed are reported."""

import json
from pathlib import Path
from typing import Final

import onnx

from basisconv.formats import onnx_writer, pt2_writer, weights
from worker.work import Message, Said, Work, progress

MEDIA_TYPES: Final = {
    "onnx": "application/octet-stream",
    "pt2": "application/octet-stream",
    "safetensors": "application/octet-stream",
    "recipe": "application/json",
}


def export(work: Work) -> Said:
    wanted = list(work.options.exports)
    formats = [*wanted, *({work.network.format} - set(wanted))]
    for done, name in enumerate(formats):
        yield progress(done / len(formats), f"Writing {name}")
        path = work.folder / f"compressed.{name}"
        _write(work, name, path)
        work.files.append(_entry(work, name, path) | {"published": name in wanted})


def _write(work: Work, name: str, path: Path) -> None:
    if name == "onnx":
        own = work.network.format == "onnx"
        write = onnx_writer.write if own else onnx_writer.export_onnx
        onnx.save_model(write(work.network, work.module), path)
    elif name == "pt2":
        pt2_writer.write(work.network, work.module, path)
    else:
        recipe = weights.write(work.network, work.module, path)
        target = path.with_name("recipe.json")
        target.write_text(json.dumps(recipe, indent=1))
        work.attachments.append(_entry(work, "recipe", target))


def _entry(work: Work, name: str, path: Path) -> Message:
    public = "recipe.json" if name == "recipe" else f"{_stem(work)}-compressed.{name}"
    return {"format": name, "file": path.name, "name": public, "media_type": MEDIA_TYPES[name]}


def _stem(work: Work) -> str:
    """The model's name without its ending, fit for a file's name on any system."""
    stem = Path(str(work.model.get("name") or "network")).stem
    clean = "".join(c if c.isalnum() or c in "-_." else "-" for c in stem).strip("-.")
    return clean[:100] or "network"
