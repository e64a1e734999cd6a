"""Files on their way to the service: resumable by tus 1.0, or in one form where the server is older."""

import base64
import hashlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Final, Literal

import httpx

from basisconv_client.errors import FileChanged, NotFound, ServiceError, Unreachable
from basisconv_client.resources import Json, Upload
from basisconv_client.transport import Transport, json_of, new_key, problem_of

Kind = Literal["model", "dataset"]
Progress = Callable[[int, int], None]  # bytes so far, bytes in all

PATH: Final = "/v1/uploads"
_TUS: Final = {"Tus-Resumable": "1.0.0"}
_BLOCK_BYTES: Final = 1 << 18
_TIMEOUT: Final = httpx.Timeout(600, connect=10)  # the answer comes when all of it is stored
_GOES_ON: Final = frozenset({409, 423, 429, 500, 502, 503, 504})  # then HEAD tells from which byte
_CHECKSUM_MISMATCH: Final = 460


class NoResumableUploads(Exception):  # noqa: N818 - says what is so
    """The server is older than resumable uploads."""


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Resumable:
    """One file, sent so that neither a broken line nor a killed process begins it again.

    Nothing is remembered on this side: the server lists what is under way, with each file's SHA-256.
    """

    def __init__(self, transport: Transport, path: Path, kind: Kind, sha256: str, progress: Progress) -> None:
        self._transport, self._path, self._kind, self._sha256 = transport, path, kind, sha256
        self._length = path.stat().st_size
        self._progress = progress

    def send(self) -> str:
        """The id of the complete upload."""
        upload, offset = self._under_way() or (self._begin(), 0)
        failures = 0
        while offset < self._length:
            before = offset
            try:
                offset = self._append(upload, offset)
                failures = 0
            except (httpx.TransportError, ServiceError) as error:
                offset = self._look_again(upload, error, failures + 1)
                failures = 0 if offset > before else failures + 1
        self._progress(self._length, self._length)
        return upload

    def _under_way(self) -> tuple[str, int] | None:
        """An upload of the very same file that was cut off before."""
        try:
            page = self._transport.get(PATH, {"limit": 100})
        except ServiceError as error:
            if error.status in (404, 405):
                raise NoResumableUploads from error
            raise
        for row in page["data"]:
            found = Upload.model_validate(row)
            if (found.kind, found.filename, found.length) != (self._kind, self._path.name, self._length):
                continue
            state = self._state(found.id)
            if state is not None and _metadata(state).get("sha256") == self._sha256:
                return found.id, int(state["Upload-Offset"])
        return None

    def _begin(self) -> str:
        metadata = {"filename": self._path.name, "kind": self._kind, "sha256": self._sha256}
        made = self._transport.request(
            "POST",
            PATH,
            headers={
                **_TUS,
                "Idempotency-Key": new_key(),
                "Upload-Length": str(self._length),
                "Upload-Metadata": ",".join(f"{name} {_encoded(text)}" for name, text in metadata.items()),
            },
        )
        return str(json_of(made)["id"])

    def _append(self, upload: str, offset: int) -> int:
        with self._path.open("rb") as file:
            file.seek(offset)
            response = self._transport.http.patch(
                f"{PATH}/{upload}",
                content=self._blocks(file, offset),
                headers={
                    **_TUS,
                    "Content-Type": "application/offset+octet-stream",
                    "Content-Length": str(self._length - offset),
                    "Upload-Offset": str(offset),
                },
                timeout=_TIMEOUT,
            )
        if response.status_code == _CHECKSUM_MISMATCH:
            raise FileChanged(f"{self._path} was changed while it was being sent. Send it again.")
        if response.is_error:
            raise problem_of(response)
        return int(response.headers["Upload-Offset"])

    def _blocks(self, file: IO[bytes], offset: int) -> Iterator[bytes]:
        self._progress(offset, self._length)
        while offset < self._length:
            block = file.read(min(_BLOCK_BYTES, self._length - offset))
            if not block:
                raise FileChanged(f"{self._path} became shorter while it was being sent. Send it again.")
            yield block
            offset += len(block)
            self._progress(offset, self._length)

    def _look_again(self, upload: str, error: httpx.TransportError | ServiceError, failures: int) -> int:
        """The byte to go on from after a failed request. Raises the error where that is of no use."""
        if isinstance(error, ServiceError) and error.status not in _GOES_ON:
            raise error
        patience = self._transport.patience
        if failures >= patience.tries:
            if isinstance(error, ServiceError):
                raise error
            raise Unreachable(self._transport.url, str(error) or type(error).__name__) from error
        asked = error.retry_after if isinstance(error, ServiceError) else None
        self._transport.rest(str(error), patience.pause(failures) if asked is None else asked)
        state = self._state(upload)
        if state is None:
            raise error
        return int(state["Upload-Offset"])

    def _state(self, upload: str) -> Mapping[str, str] | None:
        """The headers that say where an upload stands; None where it is gone."""
        try:
            return self._transport.request("HEAD", f"{PATH}/{upload}", headers=_TUS).headers
        except NotFound:
            return None


def send_form(
    transport: Transport, collection: str, path: Path, fields: Mapping[str, str], progress: Progress
) -> Json:
    """The file and what is said of it, in one request: what every server takes, and nobody can resume."""
    key = new_key()

    def form() -> dict[str, Any]:
        file = _Watched(path, progress)
        return {"data": dict(fields), "files": {"file": (path.name, file, "application/octet-stream")}}

    answer = transport.request(
        "POST", f"/v1/{collection}", files=form, headers={"Idempotency-Key": key}, timeout=_TIMEOUT
    )
    return json_of(answer)


class _Watched:
    """An open file whose reading is told."""

    def __init__(self, path: Path, progress: Progress) -> None:
        self._file = path.open("rb")
        self._length = path.stat().st_size
        self._progress = progress

    def read(self, size: int = -1) -> bytes:
        block = self._file.read(size)
        self._progress(self._file.tell(), self._length)
        if not block:
            self._file.close()
        return block

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def fileno(self) -> int:
        return self._file.fileno()


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _metadata(headers: Mapping[str, str]) -> dict[str, str]:
    pairs = (pair.strip().partition(" ") for pair in headers.get("Upload-Metadata", "").split(","))
    return {name: base64.b64decode(text).decode(errors="replace") for name, _, text in pairs if name}
