"""The client of one BasisConv service. Blocking; every call that makes something may be interrupted and sent
again without making it twice."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, Unpack
from urllib.parse import quote

import httpx

from basisconv_client import downloading, following, profile, sources, uploading, wishes
from basisconv_client.errors import JobFailed, PlanFailed
from basisconv_client.resources import (
    Artifact,
    Batch,
    Dataset,
    Event,
    Job,
    Json,
    Layer,
    Model,
    Plan,
    Point,
    Resource,
)
from basisconv_client.sources import id_of
from basisconv_client.transport import Patience, Query, Transport, json_of, new_key
from basisconv_client.uploading import Progress
from basisconv_client.wishes import CompressionWishes, InputWishes, Wishes

R = TypeVar("R", bound=Resource)


def _silent(done: int, total: int) -> None:
    pass


class Client:
    """One service and one key; left out, those of the environment or of `basisconv login`.

    Close it, or use it in a `with` block. `on_wait(reason, seconds)` hears of every pause between tries.
    """

    def __init__(
        self,
        server: str | None = None,
        api_key: str | None = None,
        *,
        patience: Patience | None = None,
        on_wait: Callable[[str, float], None] | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        found = profile.resolve(server, api_key)
        self.server = found.server
        self._transport = Transport(found.server, found.api_key, patience or Patience(), on_wait, transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._transport.close()

    # The whole job

    def compress(
        self,
        model: str | Path | Model,
        data: str | Path | Dataset | None = None,
        *,
        input: InputWishes | None = None,  # noqa: A002 - the contract's name
        architecture: str | None = None,
        on_event: Callable[[Event], None] | None = None,
        **wanted: Unpack[Wishes],
    ) -> Job:
        """Upload what is not there yet, run the job, and give it back once it has succeeded.

        `model` and `data` are files, ids or what an earlier call gave back; `architecture` names the network
        of a file that holds weights only. Raises Rejected or JobFailed.
        """
        network = self.ready_model(model, input=input, architecture=architecture)
        images = None if data is None else self.ready_dataset(data)
        job = self.create_job(network, images, **wanted)
        return self.wait_job(job.id, on_event=on_event)

    # Networks and images

    def ready_model(
        self,
        source: str | Path | Model,
        *,
        name: str | None = None,
        input: InputWishes | None = None,  # noqa: A002
        architecture: str | None = None,
        progress: Progress = _silent,
        timeout_seconds: float = 600,
    ) -> Model:
        """A network that can be used: by its id, or from a file, which is sent only if it is not there."""
        if isinstance(source, Model):
            found = source
        elif sources.is_id(source, "model"):
            found = self.model(str(source))
        else:
            found = self.upload_model(
                Path(source), name=name, input=input, architecture=architecture, progress=progress
            )
        return sources.ready(found, self.model, self._transport.patience, timeout_seconds)

    def ready_dataset(
        self,
        source: str | Path | Dataset,
        *,
        name: str | None = None,
        classes: Mapping[str, int] | None = None,
        progress: Progress = _silent,
        timeout_seconds: float = 600,
    ) -> Dataset:
        """Images that can be used: by their id, or from a file, which is sent only if it is not there yet."""
        if isinstance(source, Dataset):
            found = source
        elif sources.is_id(source, "dataset"):
            found = self.dataset(str(source))
        else:
            found = self.upload_dataset(Path(source), name=name, classes=classes, progress=progress)
        return sources.ready(found, self.dataset, self._transport.patience, timeout_seconds)

    def upload_model(
        self,
        path: Path,
        *,
        name: str | None = None,
        input: InputWishes | None = None,  # noqa: A002
        architecture: str | None = None,
        progress: Progress = _silent,
        reuse: bool = True,
    ) -> Model:
        """A network file. The same bytes with the same input, already there, are not sent again.

        Comes back `inspecting` as a rule.
        """
        sha256 = uploading.sha256_of(path)
        if reuse:
            for found in sources.same_file(self._transport, "models", Model, sha256):
                if found.architecture == architecture and sources.same_input(found, input or {}):
                    return found
        said = {"name": name, "input": dict(input) if input else None, "architecture": architecture}
        return Model.model_validate(sources.send(self._transport, "models", path, sha256, said, progress))

    def upload_dataset(
        self,
        path: Path,
        *,
        name: str | None = None,
        classes: Mapping[str, int] | None = None,
        progress: Progress = _silent,
        reuse: bool = True,
    ) -> Dataset:
        """Images as .npz, Parquet or an archive of class folders; `classes` maps class names to indices."""
        sha256 = uploading.sha256_of(path)
        if reuse and classes is None:  # which classes an earlier upload was given, the service does not tell
            for found in sources.same_file(self._transport, "datasets", Dataset, sha256):
                return found
        said = {"name": name, "classes": None if classes is None else dict(classes)}
        return Dataset.model_validate(sources.send(self._transport, "datasets", path, sha256, said, progress))

    def model(self, model: str) -> Model:
        return Model.model_validate(self.get(f"/v1/models/{_part(model)}"))

    def models(self, **query: str | int | None) -> Iterator[Model]:
        """Your networks, newest first."""
        return self._all("/v1/models", Model, query)

    def layers(self, model: str) -> list[Layer]:
        """A network's layers in the order of execution."""
        return [Layer.model_validate(row) for row in self.get(f"/v1/models/{_part(model)}/layers")["data"]]

    def delete_model(self, model: str) -> None:
        self._transport.request("DELETE", f"/v1/models/{_part(model)}")

    def dataset(self, dataset: str) -> Dataset:
        return Dataset.model_validate(self.get(f"/v1/datasets/{_part(dataset)}"))

    def datasets(self, **query: str | int | None) -> Iterator[Dataset]:
        """Your data sets, newest first."""
        return self._all("/v1/datasets", Dataset, query)

    def delete_dataset(self, dataset: str) -> None:
        self._transport.request("DELETE", f"/v1/datasets/{_part(dataset)}")

    # Plans

    def plan(
        self, model: str | Model, dataset: str | Dataset | None = None, **wanted: Unpack[CompressionWishes]
    ) -> Plan:
        """What a job would choose, and what to expect of it. Raises PlanFailed, or ServerTooOld."""
        body = wishes.plan_body(id_of(model), None if dataset is None else id_of(dataset), wanted)
        with self._transport.needing("plans", "/v1/plans"):
            found = Plan.model_validate(self._transport.create("/v1/plans", body))
        pause = 0.1
        while found.status == "queued":
            self._transport.patience.sleep(pause)
            pause = min(1.5 * pause, 2.0)
            found = Plan.model_validate(self.get(f"/v1/plans/{_part(found.id)}"))
        if found.status == "failed":
            raise PlanFailed(found.error or {})
        return found

    # Jobs

    def create_job(
        self, model: str | Model, dataset: str | Dataset | None = None, **wanted: Unpack[Wishes]
    ) -> Job:
        """Queue a job. Raises ValueError for wishes that make no job."""
        return self.submit(wishes.job_body(id_of(model), None if dataset is None else id_of(dataset), wanted))

    def submit(self, body: Mapping[str, Any], *, idempotency_key: str | None = None) -> Job:
        """Queue a job by the contract's own body."""
        return Job.model_validate(self._transport.create("/v1/jobs", body, idempotency_key))

    def job(self, job: str) -> Job:
        return Job.model_validate(self.get(f"/v1/jobs/{_part(job)}"))

    def jobs(self, **query: str | int | None) -> Iterator[Job]:
        """Your jobs, newest first; `status` and `batch` narrow them."""
        return self._all("/v1/jobs", Job, query)

    def cancel(self, job: str) -> Job:
        return Job.model_validate(json_of(self._transport.request("POST", f"/v1/jobs/{_part(job)}/cancel")))

    def delete_job(self, job: str) -> None:
        self._transport.request("DELETE", f"/v1/jobs/{_part(job)}")

    def events(self, job: str, after: str = "") -> Iterator[Event]:
        """Every event of a job to `done`, live, each once; a lost connection is taken up again."""
        return following.events(self._transport, job, after)

    def wait_job(self, job: str, *, on_event: Callable[[Event], None] | None = None) -> Job:
        """The job once it has succeeded. Raises JobFailed however else it ended."""
        for event in self.events(job):
            if on_event is not None:
                on_event(event)
        ended = self.job(job)
        if ended.status != "succeeded":
            raise JobFailed(job, ended.status, ended.error)
        return ended

    def metrics(self, job: str) -> dict[str, list[Point]]:
        """Every measured series by name: train_loss, accuracy …"""
        found = self.get(f"/v1/jobs/{_part(job)}/metrics")
        return {name: [Point.model_validate(point) for point in series] for name, series in found.items()}

    def report(self, job: str) -> str:
        """The job as one self-contained HTML file."""
        return self._transport.request("GET", f"/v1/jobs/{_part(job)}/report").text

    def artifacts(self, job: str) -> list[Artifact]:
        """All files that a job made."""
        return list(self._all(f"/v1/jobs/{_part(job)}/artifacts", Artifact, {}))

    def download(self, artifact: Artifact, target: Path | str, progress: Progress = _silent) -> Path:
        """An artifact's file, whole and with the listed SHA-256, or not at all.

        Into `target` under its own name where that is a folder or ends in /; else as `target`.
        """
        file = Path(target)
        if file.is_dir() or (isinstance(target, str) and target.endswith("/")):
            file /= Path(artifact.name).name  # a name, never a path
        return downloading.download(self._transport, artifact, file, progress)

    # Batches

    def submit_batch(self, body: Mapping[str, Any]) -> Batch:
        """Many jobs by the contract's own body: `{"jobs": […]}`, or models, grid and base."""
        with self._transport.needing("batches", "/v1/batches"):
            return Batch.model_validate(self._transport.create("/v1/batches", body))

    def submit_batch_lines(
        self, lines: str, *, name: str | None = None, on_error: Literal["abort", "skip"] | None = None
    ) -> Batch:
        """Many jobs as JSONL, a body a line."""
        with self._transport.needing("batches", "/v1/batches"):
            answer = self._transport.request(
                "POST",
                "/v1/batches",
                query={"name": name, "on_error": on_error},
                content=lines.encode(),
                headers={"Content-Type": "application/jsonl", "Idempotency-Key": new_key()},
            )
        return Batch.model_validate(json_of(answer))

    def batch(self, batch: str) -> Batch:
        return Batch.model_validate(self.get(f"/v1/batches/{_part(batch)}"))

    def batches(self, **query: str | int | None) -> Iterator[Batch]:
        """Your batches, newest first."""
        return self._all("/v1/batches", Batch, query)

    def watch_batch(self, batch: str) -> Iterator[Batch]:
        """The batch again and again, until it has ended."""
        pause = 0.5
        while True:
            found = self.batch(batch)
            yield found
            if found.ended:
                return
            self._transport.patience.sleep(pause)
            pause = min(1.5 * pause, 5.0)

    def cancel_batch(self, batch: str) -> Batch:
        return Batch.model_validate(
            json_of(self._transport.request("POST", f"/v1/batches/{_part(batch)}/cancel"))
        )

    def delete_batch(self, batch: str) -> None:
        self._transport.request("DELETE", f"/v1/batches/{_part(batch)}")

    def batch_results(self, batch: str) -> list[Json]:
        """What has ended so far, in the order of the lines; then the invalid lines with their errors."""
        text = self._transport.request("GET", f"/v1/batches/{_part(batch)}/results").text
        return [json.loads(line) for line in text.split("\n") if line]

    # Anything

    def usage(self) -> Json:
        """What you use, and what your key may use."""
        with self._transport.needing("usage figures", "/v1/usage"):
            return self.get("/v1/usage")

    def get(self, path: str, query: Query | None = None) -> Json:
        """Any resource or list of the contract."""
        return self._transport.get(path, query)

    def _all(self, path: str, kind: type[R], query: Query) -> Iterator[R]:
        return map(kind.model_validate, self._transport.rows(path, query))


def _part(text: str) -> str:
    """Somebody's text as one part of an address."""
    return quote(text, safe="")
