"""Networks and images as a user names them: an id, a file, or what an earlier call gave; each sent once."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

from basisconv_client import uploading
from basisconv_client.errors import Rejected
from basisconv_client.resources import Dataset, Json, Model
from basisconv_client.transport import Patience, Transport
from basisconv_client.uploading import NoResumableUploads, Progress

U = TypeVar("U", Model, Dataset)

_MOST_PAGES: Final = 20  # looked through for the same file, on a server that cannot search
_AS_IT_CAME: Final = {"scale": 255.0, "resize": None, "crop": None, "interpolation": "bilinear"}


def is_id(text: object, prefix: str) -> bool:
    """Whether this names something on the server rather than a file here."""
    return isinstance(text, str) and text.startswith(f"{prefix}_") and not Path(text).exists()


def id_of(source: str | Model | Dataset) -> str:
    return source if isinstance(source, str) else source.id


def same_file(transport: Transport, collection: str, kind: type[U], sha256: str) -> Iterator[U]:
    """Uploads of these bytes that can be used. A server that cannot search is looked through."""
    rows = transport.rows(f"/v1/{collection}", {"sha256": sha256}, most_pages=_MOST_PAGES)
    for found in map(kind.model_validate, rows):
        if found.sha256 == sha256 and found.status != "rejected":
            yield found


def same_input(found: Model, asked: Mapping[str, Any]) -> bool:
    """Whether an upload that says this of its input would come out as that one did."""
    has = found.input.model_dump() if found.input else {}
    wanted = {**_AS_IT_CAME, **{name: value for name, value in asked.items() if value is not None}}
    for name, neutral in (("mean", 0.0), ("std", 1.0)):
        values = wanted.get(name)
        if values is None:
            values = [neutral] * len(has.get(name) or [])
        wanted[name] = list(values)
    has = {"mean": [], "std": [], **{n: v for n, v in has.items() if v is not None}}
    return all(_equal(has.get(name), value) for name, value in wanted.items())


def _equal(left: Any, right: Any) -> bool:
    if isinstance(right, list | tuple):
        return list(left or []) == list(right)
    return bool(left == right)


def send(
    transport: Transport,
    collection: str,
    path: Path,
    sha256: str,
    said: Mapping[str, Any],
    progress: Progress,
) -> Json:
    """The file, and what is said of it, as a new network or data set."""
    given = {name: value for name, value in said.items() if value is not None}
    kind: uploading.Kind = "model" if collection == "models" else "dataset"
    try:
        upload = uploading.Resumable(transport, path, kind, sha256, progress).send()
    except NoResumableUploads:
        fields = {n: v if isinstance(v, str) else json.dumps(v) for n, v in given.items()}
        return uploading.send_form(transport, collection, path, fields, progress)
    return transport.create(f"/v1/{collection}", {"upload": upload, "sha256": sha256, **given})


def ready(found: U, look: Callable[[str], U], patience: Patience, timeout_seconds: float) -> U:
    """The upload once it was looked at. Raises Rejected with the reason, or TimeoutError."""
    pause, waited = 0.1, 0.0
    while found.status not in ("ready", "rejected"):
        if waited > timeout_seconds:
            raise TimeoutError(f"{found.id} is still {found.status} after {timeout_seconds:g} s")
        patience.sleep(pause)
        waited += pause
        pause = min(1.5 * pause, 2.0)
        found = look(found.id)
    if found.status == "rejected":
        raise Rejected(found.error or {})
    return found
