"""`basisconv demo`: the main job from the command line, on the bundled example.

Speaks to a running server, or starts one for as long as it takes. Ends with 0 when the job succeeded.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from app import example
from app.client import Client, DownloadDamaged, Json, ServiceError
from app.embedded.children import NotStarted, spawn, stop, tail
from app.embedded.folders import free_port

START_SECONDS: Final = 120  # a first start makes the databases
STOP_SECONDS: Final = 60  # longer than the server gives its workers
_FIGURES: Final = ("original", "truncated", "compressed")


class DemoFailed(Exception):  # noqa: N818 - says what is wrong
    """The demo cannot go on; the message says why and what to do."""


@dataclass(frozen=True)
class Surroundings:
    """What the demo takes from its environment."""

    url: str
    url_given: bool
    api_key: str | None
    var_dir: Path
    folder: Path

    @classmethod
    def of(cls, environment: Mapping[str, str], folder: Path = Path("build/demo")) -> "Surroundings":
        url = environment.get("BASISCONV_URL")
        return cls(
            url=(url or f"http://127.0.0.1:{environment.get('PORT') or 8000}").rstrip("/"),
            url_given=bool(url),
            api_key=environment.get("BASISCONV_API_KEY") or None,
            var_dir=Path(environment.get("BASISCONV_VAR_DIR") or "var"),
            folder=folder,
        )

    def key(self) -> str:
        """The key that was given, else the one that the server on this machine wrote down."""
        return self.api_key or self.owner_key()

    def owner_key(self) -> str:
        file = self.var_dir / "api-key"
        try:
            return file.read_text().strip()
        except OSError as error:
            raise DemoFailed(
                f"There is no API key: BASISCONV_API_KEY is not set and {file} cannot be read "
                f"({error.strerror}). Set the key, or run this where `make run` runs."
            ) from error


def main(environment: Mapping[str, str] | None = None) -> int:
    """Run the demo and say what came of it; 0 when the job succeeded, 130 after Ctrl-C, else 1."""
    console = Console(soft_wrap=True)
    surroundings = Surroundings.of(os.environ if environment is None else environment)
    try:
        with running_server(surroundings, console) as (url, key), Client(url, key) as client:
            run(client, surroundings.folder, console)
    except (DemoFailed, DownloadDamaged, NotStarted, TimeoutError) as error:
        return _failed(console, str(error))
    except ServiceError as error:
        return _failed(console, f"The server refused ({error.code}): {error}")
    except httpx.HTTPError as error:
        return _failed(console, f"The connection to {surroundings.url} broke: {error or repr(error)}")
    except KeyboardInterrupt:
        console.print("Stopped.")
        return 130
    return 0


def run(client: Client, folder: Path, console: Console) -> Json:
    """Upload, compress, wait, show, download; the finished job."""
    model, dataset = _upload(client, console)
    job = client.create_job(example.job_body(model["id"], dataset["id"]))
    console.print(f"Job [bold]{job['id']}[/bold]: {client.url}/jobs/{job['id']}")
    job = _follow(client, job["id"], console)
    if job["status"] != "succeeded":
        raise DemoFailed(_why_not(job))
    show(job, console)
    _download(client, job, folder / job["id"], console)
    return job


def _upload(client: Client, console: Console) -> tuple[Json, Json]:
    for file in (example.NETWORK, example.IMAGES):
        if not file.exists():
            raise DemoFailed(f"{file} is missing. Run this from a full checkout of the project.")
    model = client.upload_model(example.NETWORK, name=example.NETWORK_NAME, input=example.INPUT)
    dataset = client.upload_dataset(example.IMAGES, name=example.IMAGES_NAME)
    with console.status("The network and its images are being looked at …"):
        model = client.wait_ready("models", model["id"])
        dataset = client.wait_ready("datasets", dataset["id"])
    summary, examples = model["summary"], dataset["examples"]
    console.print(
        f"Network [bold]{model['name']}[/bold]: {summary['macs']:,} MACs, {summary['params']:,} parameters, "
        f"{summary['compressible']} of {summary['layers']} layers compressible"
    )
    console.print(
        f"Images [bold]{dataset['name']}[/bold]: {examples['train']:,} to learn from, "
        f"{examples['test']:,} to judge by, {dataset['classes']} classes"
    )
    return model, dataset


def _follow(client: Client, job: str, console: Console) -> Json:
    """The job once it has ended; its progress on the console until then."""
    columns = (TextColumn("{task.description:<10}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        bar = progress.add_task("queued", total=1.0)
        for event in client.events(job):
            if event.type in ("stage", "progress"):
                progress.update(bar, description=event.stage or "running")
                if isinstance(fraction := event.data.get("fraction"), int | float):
                    progress.update(bar, completed=fraction)
            elif event.type == "warning":
                progress.console.print(f"[yellow]Note:[/yellow] {escape(event.message)}", highlight=False)
        ended = client.job(job)
        whole = 1.0 if ended["status"] == "succeeded" else None  # None leaves the bar where it is
        progress.update(bar, description=ended["status"], completed=whole)
    return ended


def _why_not(job: Mapping[str, Any]) -> str:
    error = job.get("error") or {}
    reason = f": {error.get('detail', '')} {error.get('hint') or ''}".rstrip() if error else "."
    return f"The job ended as {job['status']} ({error.get('code', 'no error given')}){reason}"


def show(job: Mapping[str, Any], console: Console) -> None:
    """The table of before and after."""
    result = job["result"]
    table = Table(title="Before and after")
    for heading in ("", "original", "truncated", "compressed"):
        table.add_column(heading, justify="left" if not heading else "right")
    rows = {
        "accuracy": [_percent(result[name].get("accuracy")) for name in _FIGURES],
        "MACs": _counts(result, "macs"),
        "parameters": _counts(result, "params"),
        "file bytes": _counts(result, "bytes"),
        "latency, batch 1": [_latency(result[name], "batch_1") for name in _FIGURES],
        "latency, batch 32": [_latency(result[name], "batch_32") for name in _FIGURES],
    }
    for name, values in rows.items():
        table.add_row(name, *values)
    console.print(table)
    met = "met" if result["target_met"] else "missed"
    console.print(f"Target {met}; measured on {result['device']}.")


def _counts(result: Mapping[str, Any], name: str) -> list[str]:
    before = result["original"].get(name)
    return [_count(result[column].get(name), before) for column in _FIGURES]


def _count(value: float | None, before: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,}" if not before or value == before else f"{value:,} ({value / before:.0%})"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.2%}"


def _latency(figures: Mapping[str, Any], name: str) -> str:
    value = (figures.get("latency_ms") or {}).get(name)
    return "–" if value is None else f"{value:.3f} ms"


def _download(client: Client, job: Mapping[str, Any], folder: Path, console: Console) -> None:
    for artifact in client.artifacts(job["id"]):
        path = client.download(artifact, folder)
        size, digest = f"{artifact['bytes']:,}", artifact["sha256"][:16]
        console.print(f"  {path}  {size} bytes, sha256 {digest}… verified", highlight=False)
    (folder / "job.json").write_text(json.dumps(dict(job), indent=1))
    console.print(f"The files are in [bold]{folder}[/bold].")


# The server


@contextmanager
def running_server(surroundings: Surroundings, console: Console) -> Iterator[tuple[str, str]]:
    """URL and key of a server that answers: the one that runs, or one of our own until the block ends."""
    if answers(surroundings.url):
        yield surroundings.url, surroundings.key()
        return
    if surroundings.url_given:
        raise DemoFailed(
            f"No server answers at {surroundings.url} (BASISCONV_URL). Start it, or unset BASISCONV_URL: "
            "then the demo starts one for itself."
        )
    with _own_server(surroundings, console) as url:
        yield url, surroundings.owner_key()


def answers(url: str) -> bool:
    """Whether a service of this kind answers there."""
    try:
        answer = httpx.get(f"{url}/livez", timeout=5, trust_env=False)
        return answer.status_code == httpx.codes.OK and answer.json().get("status") == "ok"
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, AttributeError):
        return False


@contextmanager
def _own_server(surroundings: Surroundings, console: Console) -> Iterator[str]:
    port = _port(surroundings.url)
    url = f"http://127.0.0.1:{port}"
    surroundings.folder.mkdir(parents=True, exist_ok=True)
    log = surroundings.folder / "server.log"
    log.unlink(missing_ok=True)
    console.print(f"No server runs here: starting one at {url} (its log: {log}).")
    command = [sys.executable, "-m", "app.cli", "serve"]
    environment = {**os.environ, "PORT": str(port), "PYTHONUNBUFFERED": "1"}
    environment["BASISCONV_VAR_DIR"] = str(surroundings.var_dir.resolve())
    process = spawn(command, log=log, environment=environment, death_signal=signal.SIGTERM)
    try:
        with console.status("The server starts …"):
            _wait(url, process, log)
        yield url
    finally:
        with console.status("The server stops …"):
            stop(process, grace_seconds=STOP_SECONDS)


def _port(url: str) -> int:
    """The port where a server was looked for, unless something else sits there."""
    port = urlsplit(url).port or 8000
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return free_port()
    return port


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not answers(url):
        ended = process.poll()
        if ended is not None:
            raise NotStarted(f"The server ended with status {ended}. The end of {log}:\n{tail(log)}")
        if time.monotonic() > deadline:
            raise NotStarted(
                f"The server did not answer within {START_SECONDS} s. The end of {log}:\n{tail(log)}"
            )
        time.sleep(0.2)


def _failed(console: Console, message: str) -> int:
    console.print(f"[red]The demo failed.[/red] {escape(message)}", highlight=False)
    return 1


if __name__ == "__main__":
    sys.exit(main())
