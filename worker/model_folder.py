"""An archive of a Hugging Face model folder: the few files of it that are read, under names of our own."""

import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from app.core.errors import (
    MalformedDataset,
    MalformedModel,
    ResourceLimit,
    UnsafeSerialization,
    UnsupportedFormat,
)
from basisconv.formats.stored import State, read_safetensors
from worker.data.archive import Archive, Entry, open_archive
from worker.data.limits import Limits

CONFIG: Final = "config.json"
PREPROCESSOR: Final = "preprocessor_config.json"
WEIGHTS: Final = "model.safetensors"
INDEX: Final = "model.safetensors.index.json"
PICKLES: Final = ("pytorch_model.bin", "pytorch_model.bin.index.json", "pytorch_model-00001")
_JSON_BYTES: Final = 20_000_000  # an index of a million tensors, or the names of as many classes
_LIMITS: Final = Limits(images=10_000)  # of what the archive lists
_SAVE: Final = "model.save_pretrained(folder) writes all that is needed; pack the folder as zip or tar."
_CONVERT: Final = (
    "Convert it where you trust it: AutoModelForImageClassification.from_pretrained(folder)"
    ".save_pretrained(folder) writes model.safetensors."
)


@dataclass(frozen=True)
class Folder:
    """What a model folder says and holds."""

    config: dict[str, Any]
    preprocessor: dict[str, Any] | None
    state: State


def read_folder(source: Path, scratch: Path) -> Folder:
    """Raises MalformedModel, UnsafeSerialization or ResourceLimit, each naming the file inside."""
    try:
        with open_archive(source, scratch, _LIMITS) as archive:
            files = _of_one_folder(archive)
            config = _json(archive, files[CONFIG])
            told = files.get(PREPROCESSOR)
            preprocessor = None if told is None else _json(archive, told)
            return Folder(config, preprocessor, _state(archive, files, scratch))
    except MalformedDataset as problem:  # the same archives hold data sets elsewhere
        raise MalformedModel(problem.detail, hint=problem.hint) from problem
    except ResourceLimit as problem:
        raise ResourceLimit(problem.detail, hint=_SAVE, limit=problem.extra.get("limit")) from problem


def _of_one_folder(archive: Archive) -> dict[str, Entry]:
    """The files beside the one `config.json` that lies highest, by their names in that folder."""
    paths = {PurePosixPath(entry.name): entry for entry in archive.entries}
    configs = sorted((path for path in paths if path.name == CONFIG), key=lambda path: len(path.parts))
    if not configs:
        raise UnsupportedFormat(
            f"The archive is no model folder: it holds no {CONFIG}{_held(archive)}.", hint=_SAVE
        )
    if len(configs) > 1 and len(configs[0].parts) == len(configs[1].parts):
        raise MalformedModel(
            f"The archive holds two model folders: {configs[0].parent} and {configs[1].parent}.",
            hint="Send one at a time.",
        )
    return {path.name: entry for path, entry in paths.items() if path.parent == configs[0].parent}


def _held(archive: Archive) -> str:
    names = [entry.name[:100] for entry in archive.entries[:3]]
    return f"; it holds {', '.join(names)} …" if names else ""


def _json(archive: Archive, entry: Entry) -> dict[str, Any]:
    if entry.size > _JSON_BYTES:
        raise MalformedModel(
            f"{entry.name} has {entry.size:,} bytes; the limit is {_JSON_BYTES:,}.", hint=_SAVE
        )
    try:
        told = json.loads(archive.read(entry))
    except (ValueError, RecursionError) as error:
        raise MalformedModel(f"{entry.name} is not JSON: {str(error)[:200]}.", hint=_SAVE) from error
    if not isinstance(told, dict):
        raise MalformedModel(f"{entry.name} holds no object.", hint=_SAVE)
    return told


def _state(archive: Archive, files: dict[str, Entry], scratch: Path) -> State:
    """All weights, of one file or of the shards that an index names."""
    names = [WEIGHTS] if WEIGHTS in files else _shards(archive, files)
    state: State = {}
    for name in names:
        extracted = scratch / WEIGHTS
        archive.extract(files[name], extracted)
        try:
            found = read_safetensors(extracted)
        finally:
            extracted.unlink(missing_ok=True)
        if twice := sorted(state.keys() & found.keys()):
            raise MalformedModel(f"{name} holds {twice[0][:200]}, which another shard holds too.", hint=_SAVE)
        state |= found
    return state


def _shards(archive: Archive, files: dict[str, Entry]) -> list[str]:
    if INDEX not in files:
        if any(name.startswith(PICKLES) for name in files):
            raise UnsafeSerialization(
                "The folder has its weights as pytorch_model.bin only, a pickle, which can run any code.",
                hint=_CONVERT,
            )
        raise MalformedModel(f"The folder holds no {WEIGHTS}{_held(archive)}.", hint=_SAVE)
    index = _json(archive, files[INDEX]).get("weight_map")
    if not isinstance(index, dict) or not all(isinstance(name, str) for name in index.values()):
        raise MalformedModel(f"{INDEX} has no weight_map.", hint=_SAVE)
    shards = sorted(set(index.values()))
    missing = [name for name in shards if name not in files or not name.endswith(".safetensors")]
    if missing or not shards:
        raise MalformedModel(
            f"{INDEX} names {len(missing)} files that are not in the folder"
            + (f", such as {missing[0][:100]!r}." if missing else " and no weights."),
            hint=_SAVE,
        )
    return shards
