"""A small client of the REST interface: upload, wait, follow a job live, download what it made.

Resources come back as the JSON objects that the contract describes. Needs httpx alone.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self

import httpx

Json = dict[str, Any]
Collection = Literal["models", "datasets"]
_TIMEOUT: Final = httpx.Timeout(60, connect=10)
_UPLOAD_TIMEOUT: Final = httpx.Timeout(600, connect=10)  # the answer comes when all of it is stored
_TRIES: Final = 8  # of an event stream in a row without one event: about half a minute
_RETRY: Final = frozenset({429, 500, 502, 503, 504})


class ServiceError(Exception):
    """The service refused or failed; `problem` is its problem document, `code` the stable code in it."""

    def __init__(self, problem: Mapping[str, Any], status: int | None = None) -> None:
        self.problem = dict(problem)
        self.status = status if status is not None else problem.get("status")
        self.code = str(problem.get("code", "unknown"))
        hint = f" {problem['hint']}" if problem.get("hint") else ""
        super().__init__(f"{problem.get('detail') or problem.get('title') or 'No reason given.'}{hint}")


class Rejected(ServiceError):  # noqa: N818 - the contract's name of the status
    """An upload arrived, was looked at and cannot be used."""


class DownloadDamaged(Exception):  # noqa: N818 - says what is wrong
    """The bytes that arrived are not the ones that the service lists."""


class _StreamOver(Exception):  # noqa: N818 - says what is so
    """The job has ended and every event was read."""


@dataclass(frozen=True)
class Event:
    """One event of a job, in order of `seq`."""

    id: str
    seq: int
    type: str
    stage: str | None
    message: str
    data: Json = field(default_factory=dict)


class Client:
    """One service and one key. Close it, or use it in a `with` block."""

    def __init__(
        self,
        url: str,
        api_key: str,
        *,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.url = url.rstrip("/")
        self._sleep, self._now = sleep, now
        self._http = httpx.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {api_key}"},
            timeout=_TIMEOUT,
            transport=transport,
            trust_env=not _is_loopback(self.url),  # no proxy stands between a machine and itself
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    # Uploads

    def upload_model(
        self,
        path: Path,
        *,
        name: str | None = None,
        input: Mapping[str, Any] | None = None,  # noqa: A002
    ) -> Json:
        """A network file; `input` is the contract's description of what it takes. Comes back `inspecting`."""
        return self._upload("models", path, {"name": name, "input": _as_json(input)})

    def upload_dataset(
        self, path: Path, *, name: str | None = None, classes: Mapping[str, int] | None = None
    ) -> Json:
        """Images as .npz, an archive of class folders or Parquet; `classes` maps class names to indices."""
        return self._upload("datasets", path, {"name": name, "classes": _as_json(classes)})

    def wait_ready(self, collection: Collection, resource: str, *, timeout_seconds: float = 600) -> Json:
        """Until the upload was looked at. Raises Rejected with the reason, or TimeoutError."""
        deadline, pause = self._now() + timeout_seconds, 0.1
        while True:
            found = self.get(f"/v1/{collection}/{resource}")
            if found["status"] == "ready":
                return found
            if found["status"] == "rejected":
                raise Rejected(found.get("error") or {})
            if self._now() > deadline:
                raise TimeoutError(f"{resource} is still {found['status']} after {timeout_seconds:g} s")
            self._sleep(pause)
            pause = min(2 * pause, 2.0)

    def _upload(self, collection: Collection, path: Path, fields: Mapping[str, str | None]) -> Json:
        given = {name: value for name, value in fields.items() if value is not None}
        with path.open("rb") as file:
            files = {"file": (path.name, file, "application/octet-stream")}
            return _json(
                self._http.post(f"/v1/{collection}", data=given, files=files, timeout=_UPLOAD_TIMEOUT)
            )

    # Jobs

    def create_job(self, body: Mapping[str, Any], *, idempotency_key: str | None = None) -> Json:
        headers = {} if idempotency_key is None else {"Idempotency-Key": idempotency_key}
        return _json(self._http.post("/v1/jobs", json=dict(body), headers=headers))

    def job(self, job: str) -> Json:
        return self.get(f"/v1/jobs/{job}")

    def cancel(self, job: str) -> Json:
        return _json(self._http.post(f"/v1/jobs/{job}/cancel"))

    def events(self, job: str) -> Iterator[Event]:
        """Every event of a job from its first to `done`, live, each once; a lost connection is taken up
        again where it broke off."""
        last, failures = "", 0
        while True:
            try:
                for id_, event in self._stream(job, last):
                    last, failures = id_, 0
                    yield event
                    if event.type == "done":
                        return
            except _StreamOver:
                return
            except httpx.TransportError:
                failures += 1
                if failures >= _TRIES:
                    raise
            except ServiceError as error:
                failures += 1
                if error.status not in _RETRY or failures >= _TRIES:
                    raise
            self._sleep(min(0.25 * 2**failures, 5.0))

    def wait_job(self, job: str) -> Json:
        """Until the job has ended, however it ended."""
        for _ in self.events(job):
            pass
        return self.job(job)

    def _stream(self, job: str, last: str) -> Iterator[tuple[str, Event]]:
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last} if last else {})
        with self._http.stream("GET", f"/v1/jobs/{job}/events", headers=headers) as response:
            if response.is_error:
                response.read()
                raise _error(response)
            if response.status_code == httpx.codes.NO_CONTENT:
                raise _StreamOver
            for id_, data in _messages(response.iter_lines()):
                yield id_ or last, _event(json.loads(data))

    # Results

    def artifacts(self, job: str) -> list[Json]:
        """All files that a job made."""
        found: list[Json] = []
        query: dict[str, Any] = {"limit": 100}
        while True:
            page = self.get(f"/v1/jobs/{job}/artifacts", query)
            found += page["data"]
            if not page.get("has_more"):
                return found
            query["after"] = page["last_id"]

    def download(self, artifact: Mapping[str, Any], folder: Path) -> Path:
        """An artifact's file in `folder`, whole and with the listed SHA-256, or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / Path(str(artifact["name"])).name  # a name, never a path
        part = target.with_name(f".{target.name}.part")
        try:
            self._fetch(str(artifact["id"]), part, artifact["sha256"])
            return part.replace(target)
        finally:
            part.unlink(missing_ok=True)

    def _fetch(self, artifact: str, part: Path, sha256: str) -> None:
        digest = hashlib.sha256()
        with (
            self._http.stream("GET", f"/v1/artifacts/{artifact}/content") as response,
            part.open("wb") as file,
        ):
            if response.is_error:
                response.read()
                raise _error(response)
            for chunk in response.iter_bytes():
                digest.update(chunk)
                file.write(chunk)
        if digest.hexdigest() != sha256:
            raise DownloadDamaged(f"{artifact} arrived with SHA-256 {digest.hexdigest()}; listed is {sha256}")

    def get(self, path: str, query: Mapping[str, Any] | None = None) -> Json:
        """Any resource or list of the contract."""
        return _json(self._http.get(path, params=dict(query or {})))


def _is_loopback(url: str) -> bool:
    return httpx.URL(url).host in {"127.0.0.1", "::1", "localhost"}


def _as_json(value: Mapping[str, Any] | None) -> str | None:
    return None if value is None else json.dumps(value)


def _json(response: httpx.Response) -> Json:
    if response.is_error:
        raise _error(response)
    try:
        body = response.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise ServiceError(
            {"detail": f"{response.url} answered {response.status_code} without a JSON object."}
        )
    return body


def _error(response: httpx.Response) -> ServiceError:
    problem: Json = {}
    with suppress(ValueError):
        body = response.json()
        problem = body if isinstance(body, dict) else {}
    said = f"{response.url} answered {response.status_code}."
    return ServiceError({"detail": said, **problem}, response.status_code)


def _messages(lines: Iterator[str]) -> Iterator[tuple[str, str]]:
    """The (id, data) of server-sent events; comments, which keep the line open, are passed over."""
    id_, data = "", list[str]()
    for line in lines:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line and data:
            yield id_, "\n".join(data)
            data = []
        elif name == "id":
            id_ = value
        elif name == "data":
            data.append(value)


def _event(body: Json) -> Event:
    return Event(
        id=str(body["id"]),
        seq=int(body["seq"]),
        type=str(body["type"]),
        stage=body.get("stage"),
        message=str(body.get("message") or ""),
        data=body.get("data") or {},
    )
