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
from typing import Final, cast
from urllib.parse import urlsplit

import httpx
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from app import example
from app.embedded.children import NotStarted, spawn, stop, tail
from app.embedded.folders import free_port
from basisconv_client import BasisConvError, Client, Dataset, Event, Job, JobFailed, Model, ServiceError
from basisconv_client.cli import show
from basisconv_client.wishes import InputWishes

START_SECONDS: Final = 120  # a first start makes the databases
STOP_SECONDS: Final = 60  # longer than the server gives its workers


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
    except JobFailed as error:
        return _failed(console, f"{error.code}: {error}")
    except ServiceError as error:
        return _failed(console, f"The server refused ({error.code}): {error}")
    except (DemoFailed, BasisConvError, NotStarted, TimeoutError) as error:
        return _failed(console, str(error))
    except httpx.HTTPError as error:
        return _failed(console, f"The connection to {surroundings.url} broke: {error or repr(error)}")
    except KeyboardInterrupt:
        console.print("Stopped.")
        return 130
    return 0


def run(client: Client, folder: Path, console: Console) -> Job:
    """Upload, compress, wait, show, download; the finished job."""
    model, dataset = _upload(client, console)
    job = client.submit(example.job_body(model.id, dataset.id))
    console.print(f"Job [bold]{job.id}[/bold]: {client.server}/jobs/{job.id}")
    job = _follow(client, job.id, console)
    if job.result is not None:
        console.print(show.before_and_after(job.result), show.verdict(job.result))
    _download(client, job, folder / job.id, console)
    return job


def _upload(client: Client, console: Console) -> tuple[Model, Dataset]:
    for file in (example.NETWORK, example.IMAGES):
        if not file.exists():
            raise DemoFailed(f"{file} is missing. Run this from a full checkout of the project.")
    with console.status("The network and its images are being looked at …"):
        model = client.ready_model(
            example.NETWORK, name=example.NETWORK_NAME, input=cast(InputWishes, example.INPUT)
        )
        dataset = client.ready_dataset(example.IMAGES, name=example.IMAGES_NAME)
    console.print(show.described(model))
    console.print(show.described_images(dataset))
    return model, dataset


def _follow(client: Client, job: str, console: Console) -> Job:
    """The job once it has ended; its progress on the console until then."""
    columns = (TextColumn("{task.description:<10}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        bar = progress.add_task("queued", total=1.0)

        def tell(event: Event) -> None:
            if event.type in ("stage", "progress"):
                progress.update(bar, description=event.stage or "running")
                if isinstance(fraction := event.data.get("fraction"), int | float):
                    progress.update(bar, completed=fraction)
            elif event.type == "warning":
                progress.console.print(f"[yellow]Note:[/yellow] {escape(event.message)}", highlight=False)

        ended = client.wait_job(job, on_event=tell)
        progress.update(bar, description=ended.status, completed=1.0)
    return ended


def _download(client: Client, job: Job, folder: Path, console: Console) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for artifact in client.artifacts(job.id):
        path = client.download(artifact, folder)
        console.print(
            f"  {path}  {artifact.bytes:,} bytes, sha256 {artifact.sha256[:16]}… verified", highlight=False
        )
    (folder / "job.json").write_text(json.dumps(job.json_object(), indent=1))
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
