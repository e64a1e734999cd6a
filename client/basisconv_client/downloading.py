"""Files from the service: whole and with the listed SHA-256, or not at all. A cut download goes on."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import httpx

from basisconv_client.errors import DownloadDamaged, ServiceError
from basisconv_client.resources import Artifact
from basisconv_client.transport import Failure, Transport, problem_of
from basisconv_client.uploading import sha256_of

Progress = Callable[[int, int], None]  # bytes so far, bytes in all
_PARTIAL: Final = 206
_NO_SUCH_RANGE: Final = 416


def download(transport: Transport, artifact: Artifact, target: Path, progress: Progress) -> Path:
    """The artifact's bytes as `target`, which is replaced at once when all of them are there and right.

    What came of a broken download waits beside it, in a hidden file, for the next try of whoever tries.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_file() and sha256_of(target) == artifact.sha256:
        progress(artifact.bytes, artifact.bytes)
        return target
    part = target.with_name(f".{target.name}.{artifact.sha256[:12]}.part")
    resumed = part.is_file()
    found = _complete(transport, artifact, part, progress)
    if found != artifact.sha256 and resumed:  # perhaps what lay there was bad
        found = _complete(transport, artifact, part, progress)
    if found != artifact.sha256:
        raise DownloadDamaged(f"{artifact.id} arrived with SHA-256 {found}; listed is {artifact.sha256}")
    return part.replace(target)


def _complete(transport: Transport, artifact: Artifact, part: Path, progress: Progress) -> str:
    """Fill the part to its end; its SHA-256. A wrong one leaves no file."""
    failures, before = 0, _size(part)
    while True:
        try:
            _fetch(transport, artifact, part, progress)
            break
        except (httpx.TransportError, ServiceError) as error:
            problem: Failure = error
        failures = 1 if _size(part) > before else failures + 1
        before = _size(part)
        transport.rest_or_give_up(problem, failures)
    found = sha256_of(part)
    if found != artifact.sha256:
        part.unlink()
    return found


def _fetch(transport: Transport, artifact: Artifact, part: Path, progress: Progress) -> None:
    have = _size(part)
    headers = {"Range": f"bytes={have}-", "If-Range": f'"{artifact.sha256}"'} if have else {}
    headers["Accept-Encoding"] = "identity"  # the bytes themselves: a range of anything else means nothing
    with transport.http.stream("GET", f"/v1/artifacts/{artifact.id}/content", headers=headers) as response:
        if response.status_code == _NO_SUCH_RANGE:
            return  # nothing is left to fetch; the hash tells whether that is right
        if response.is_error:
            response.read()
            raise problem_of(response)
        goes_on = response.status_code == _PARTIAL
        have = have if goes_on else 0
        with part.open("ab" if goes_on else "wb") as file:
            for chunk in response.iter_raw():
                file.write(chunk)
                have += len(chunk)
                progress(have, artifact.bytes)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
