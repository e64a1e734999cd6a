"""`basisconv serve`, the way `make run` calls it: a real run in a folder of its own."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from app import example
from app.embedded.folders import free_port
from basisconv_client import Client
from tests.support.processes import alive, wait_until

READY_SECONDS = 60


class Run:
    """One run: its console, its processes, its way in."""

    def __init__(self, var: Path, port: int, console: Path, **settings: str) -> None:
        self.var, self.port, self.console = var, port, console
        environment = {name: value for name, value in os.environ.items() if not name.startswith("BASISCONV_")}
        environment |= {f"BASISCONV_{name.upper()}": value for name, value in settings.items()}
        with console.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "app.cli", "serve", "--port", str(port), "--var", var],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
            )

    @property
    def said(self) -> str:
        return self.console.read_text()

    def wait_ready(self) -> "Run":
        wait_until(lambda: "is ready" in self.said or self.process.poll() is not None, READY_SECONDS)
        assert self.process.poll() is None, self.said
        return self

    def children(self) -> dict[str, psutil.Process]:
        """The run's children by what they are."""
        named = {}
        for child in psutil.Process(self.process.pid).children():
            try:
                command = " ".join(child.cmdline())
            except psutil.Error:  # it has ended
                continue
            for name, mark in MARKS.items():
                if mark in command:
                    named[name] = child
        return named

    def family(self) -> list[int]:
        return [p.pid for p in psutil.Process(self.process.pid).children(recursive=True)]

    def client(self) -> httpx.Client:
        key = (self.var / "api-key").read_text().strip()
        return httpx.Client(
            base_url=f"http://127.0.0.1:{self.port}",
            headers={"Authorization": f"Bearer {key}"},
            trust_env=False,
            timeout=20,
        )

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(how)
        return self.process.wait(60)


MARKS = {
    "postgres": "/bin/postgres",
    "valkey": "valkey-server",
    "web": "uvicorn",
    "worker-quick": "-Q quick",
    "worker-jobs": "-Q jobs",
}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """One run that several tests look at."""
    folder = tmp_path_factory.mktemp("running")
    run = Run(folder / "var", free_port(), folder / "console")
    yield run.wait_ready()
    run.stop()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Run]]:
    runs: list[Run] = []

    def begin(var: Path = tmp_path / "var", port: int | None = None, **settings: str) -> Run:
        run = Run(var, port or free_port(), tmp_path / f"console-{len(runs)}", **settings)
        runs.append(run)
        return run

    yield begin
    for run in runs:
        if run.process.poll() is None:
            run.stop()


def test_a_run_serves_keeps_its_data_and_leaves_no_process(start: Callable[..., Run]) -> None:
    first = start().wait_ready()
    link = re.search(r"http://127\.0\.0\.1:\d+/\?token=\S+", first.said)
    assert link is not None
    assert set(first.children()) == set(MARKS)
    key = (first.var / "api-key").read_text()
    with first.client() as client:
        assert client.get("/readyz").status_code == 200
        assert client.post("/v1/keys", json={"name": "kept", "scopes": []}).status_code == 201
    private = [first.var / "api-key", *(first.var / "secrets").iterdir()]
    assert [path.name for path in private if path.stat().st_mode & 0o077] == []

    family = first.family()
    assert first.stop(signal.SIGINT) == 0
    assert [pid for pid in family if alive(pid)] == []

    second = start(port=first.port).wait_ready()
    assert (second.var / "api-key").read_text() == key
    with second.client() as client:
        assert "kept" in [key["name"] for key in client.get("/v1/keys").json()["data"]]


def test_a_second_run_on_the_same_folder_says_so_and_ends(running: Run, start: Callable[..., Run]) -> None:
    second = start(var=running.var)
    assert second.process.wait(20) == 1
    assert "Already running" in second.said
    assert str(running.port) in second.said
    with running.client() as client:
        assert client.get("/readyz").status_code == 200


def test_a_taken_port_is_named_before_anything_starts(start: Callable[..., Run]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        run = start(port=taken.getsockname()[1])
        assert run.process.wait(20) == 1
        assert f"Port {run.port} is taken" in run.said
    assert not (run.var / "postgres").exists()


def test_children_that_are_killed_come_back(running: Run) -> None:
    run = running
    before = run.children()
    for child in before.values():
        child.kill()
    gone = {child.pid for child in before.values()}

    def back() -> bool:
        now = run.children()
        return set(now) == set(MARKS) and not gone & {child.pid for child in now.values()}

    wait_until(back, 30)
    with run.client() as client:
        wait_until(lambda: _ready(client), 30)
    assert run.said.count("started again") >= len(MARKS)


def test_a_run_that_is_killed_takes_everything_along_and_can_start_again(start: Callable[..., Run]) -> None:
    run = start().wait_ready()
    family = run.family()
    run.process.kill()
    run.process.wait()
    wait_until(lambda: not any(alive(pid) for pid in family), 20)
    start(port=run.port).wait_ready()


@pytest.mark.parametrize(
    ("how", "attempts"), [(signal.SIGTERM, 1), pytest.param(signal.SIGKILL, 2, marks=pytest.mark.slow)]
)
def test_a_job_interrupted_by_the_end_of_the_run_goes_on_in_the_next(
    start: Callable[..., Run], how: signal.Signals, attempts: int
) -> None:
    quick_to_notice = {"lease_seconds": "3", "heartbeat_seconds": "0.5", "reaper_seconds": "0.5"}
    first = start(**quick_to_notice).wait_ready()
    with Client(f"http://127.0.0.1:{first.port}", (first.var / "api-key").read_text().strip()) as client:
        job = client.create_job(
            client.ready_model(example.NETWORK, name="digits"),
            client.ready_dataset(example.IMAGES, name="digits"),
            basis="weights",
            rank_fraction=0.5,
            epochs=8,
            objective="labels",
            augment="none",
            exports=["onnx"],
        ).id
        wait_until(lambda: client.get(f"/v1/jobs/{job}")["stage"] == "finetune", 60)
    first.stop(how)
    second = start(port=first.port, **quick_to_notice).wait_ready()
    with Client(f"http://127.0.0.1:{second.port}", (second.var / "api-key").read_text().strip()) as client:
        wait_until(lambda: client.get(f"/v1/jobs/{job}")["status"] not in ("queued", "running"), 120)
        done = client.get(f"/v1/jobs/{job}")
        told = [event["type"] for event in client.get(f"/v1/jobs/{job}/events", {"order": "desc"})["data"]]
    assert (done["status"], done["attempt"]) == ("succeeded", attempts), done["error"]
    assert (told[0], told.count("done")) == ("done", 1)


def test_a_stop_while_it_starts_leaves_nothing(start: Callable[..., Run]) -> None:
    run = start()
    wait_until(lambda: (run.var / "postgres" / "data").is_dir(), READY_SECONDS)
    time.sleep(0.2)
    family = run.family()
    assert run.stop() == 0, run.said
    assert [pid for pid in family if alive(pid)] == []
    start(port=run.port).wait_ready()


def test_stopping_with_the_parent(tmp_path: Path) -> None:
    """`make` may be killed: the run it started stops by itself, in order."""
    port, var = free_port(), tmp_path / "var"
    command = f"'{sys.executable}' -m app.cli serve --stop-with-parent --port {port} --var '{var}'"
    with (tmp_path / "console").open("wb") as console:
        make = subprocess.Popen(["sh", "-c", f"{command}; true"], stdout=console, stderr=console)
    wait_until(lambda: "is ready" in (tmp_path / "console").read_text(), READY_SECONDS)
    family = [process.pid for process in psutil.Process(make.pid).children(recursive=True)]
    make.kill()
    make.wait()
    wait_until(lambda: not any(alive(pid) for pid in family), 40)
    assert "Stopped." in (tmp_path / "console").read_text()


def test_an_interrupt_to_make_alone_stops_the_run_too(tmp_path: Path) -> None:
    port, var = free_port(), tmp_path / "var"
    (tmp_path / "Makefile").write_text(
        f"run:\n\t@exec '{sys.executable}' -m app.cli serve --stop-with-parent --port {port} --var '{var}'\n"
    )
    with (tmp_path / "console").open("wb") as console:
        make = subprocess.Popen(["make", "-f", tmp_path / "Makefile", "run"], stdout=console, stderr=console)
    wait_until(lambda: "is ready" in (tmp_path / "console").read_text(), READY_SECONDS)
    family = [process.pid for process in psutil.Process(make.pid).children(recursive=True)]
    make.send_signal(signal.SIGINT)
    make.wait(60)
    assert [pid for pid in family if alive(pid)] == []
    assert "Stopped." in (tmp_path / "console").read_text()


def _ready(client: httpx.Client) -> bool:
    try:
        return client.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False
